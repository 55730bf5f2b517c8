"""A run that goes on, and its newest good critic."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from gad_ray.checkpoint.store import CheckpointStore
from gad_ray.checkpoint.tensors import STATE_FILE
from gad_ray.errors import GadError
from gad_ray.observability.run_dir import find_run
from gad_ray.serving.application.versions import Versions

_logger = logging.getLogger("ray.serve.gad_ray")


def critics_of(run: Path) -> list[tuple[int, Path]]:
    """A run's critics, the newest first: its checkpoints, and what it has exported at its end.

    Returns:
        When each was written (nanoseconds), and its directory.

    Raises:
        ConfigError: If there is no run.
    """
    directory = find_run(str(run))
    is_there = directory.checkpoints.is_dir()
    checkpoints = CheckpointStore(directory.checkpoints, keep=1).checkpoints() if is_there else []
    # Exports of a step in between have other names, and are no news. A link may be moved on while its critic is loaded:
    # the files of two critics must not be read as one.
    export = (directory.exports / "critic").resolve()
    found = [(_written(path / "critic" / STATE_FILE), path) for path in checkpoints]
    found.append((_written(export / "critic.json"), export))
    return sorted((one for one in found if one[0]), reverse=True)


class Follower:
    """Serves the newest good critic of a run, and looks for a newer one from time to time.

    A critic that is refused is not tried again: the one before goes on until the run brings another.

    Args:
        run: Directory of the run.
        versions: Changes what is served.
        every_s: Time between two looks.
    """

    def __init__(self, run: Path, versions: Versions, *, every_s: float) -> None:
        self._run = run
        self._versions = versions
        self._every_s = every_s
        self._tried: set[tuple[int, Path]] = set()

    async def look(self) -> bool:
        """Serve the newest critic that is fit, if it is not served yet; returns whether one was found fit now.

        Raises:
            ConfigError: If there is no run.
        """
        known = await asyncio.to_thread(critics_of, self._run)
        for one in known:
            if one in self._tried:
                return False
            self._tried.add(one)
            if await self._versions.serve(str(one[1])):
                return True
        return False

    async def keep_looking(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except (GadError, OSError) as error:  # a checkpoint that is removed while it is looked at
                _logger.warning("the run could not be looked at: %s", error)


def _written(file: Path) -> int:
    """When a file was written, in nanoseconds; 0 if it is not there."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
