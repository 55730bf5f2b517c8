"""A run's checkpoints on disk: each appears by one rename, whole, or not at all.

A checkpoint is written into a hidden staging folder beside its place. To commit it, the position and the
manifest are added, everything is flushed to the disk, and the folder is renamed to ``step-000042``. So
whatever is called ``step-…`` is complete, wherever a process or a machine died.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from pydantic import Field, JsonValue, ValidationError

from gad_ray.checkpoint.manifest import verify_manifest, write_manifest
from gad_ray.errors import CheckpointError
from gad_ray.strict_model import StrictModel

POSITION = "position.json"
_NAME = re.compile(r"step-(\d{6,})")
_HIDDEN = re.compile(
    r"\.(?P<name>step-\d{6,})\.(?P<use>staging|replaced|removed)-(?P<host>.+)-(?P<pid>\d+)-(?P<born>\d+)-\w+"
)
_FOREIGN_SECONDS = 24 * 3600
_CLOCK_SECONDS = 2
"""How far two readings of a process's start can lie apart: the clock may be set while it runs."""


class RunPosition(StrictModel):
    """Where a run stood when a checkpoint was taken: what resuming needs besides weights and optimisers."""

    format_version: Literal[1] = 1
    """Version of this record."""

    stage: str
    """Stage of the run, e.g. ``warmup`` or ``adversarial``."""

    step: int = Field(ge=0)
    """Steps completed in the whole run."""

    stage_step: int = Field(ge=0)
    """Steps completed in this stage."""

    warmup_steps: int | None = Field(default=None, ge=0)
    """Length of the warm-up, where it ended before its time or its end was seen to; absent: what the config says."""

    policy_version: int = Field(ge=0)
    """Version of the policy's weights."""

    data: dict[str, JsonValue]
    """Position of the data cursor, and what a curriculum has learned."""

    answers: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings that health rules have changed and not put back yet."""

    metrics_bytes: int = Field(ge=0)
    """Length of metrics.jsonl at that step, in bytes; a resumed run cuts off what came after."""

    config_hash: str
    """Digest of the resolved config."""

    pin: str | None = None
    """A name under which retention keeps this checkpoint for good, e.g. ``end_of_warmup``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """A checkpoint in the making.

    Attributes:
        path: Folder into which each component writes a subfolder of its own.
        step: The step it is of.
    """

    path: Path
    step: int


class CheckpointStore:
    """The checkpoints of one run. One process commits; any number may write into the staging folder."""

    def __init__(self, root: Path, keep: int) -> None:
        """Open a store, finishing or undoing what processes that died left half-done.

        Args:
            root: Folder of the checkpoints; made if need be.
            keep: How many of the newest are kept, besides pinned ones; at least 1.

        Raises:
            CheckpointError: If ``keep`` is below 1, or the folder cannot be made or read.
        """
        if keep < 1:
            raise CheckpointError(
                f"keep is {keep}: a run could not be resumed", hint="keep at least 1 checkpoint"
            )
        self.root = root
        self.keep = keep
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._clear_leftovers()
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint folder cannot be used ({error})",
                where=str(root),
                hint="choose a writable folder",
            ) from error

    def begin(self, step: int) -> Staging:
        """Make an empty folder for a checkpoint of a step.

        Raises:
            CheckpointError: If it cannot be made.
        """
        try:
            return Staging(path=self._hidden_folder(_name_of(step), "staging"), step=step)
        except OSError as error:
            raise self._unwritable(error) from error

    def commit(self, staging: Staging, meta: RunPosition) -> Path:
        """Make a staged checkpoint the run's newest, then remove those that are no longer kept.

        A checkpoint of the same step is replaced. If it fails, the staging folder is gone and every checkpoint
        that was there before still is.

        Args:
            staging: What ``begin`` gave, filled by the components.
            meta: Where the run stands.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: If ``meta`` is of another step, or the disk refuses.
        """
        if meta.step != staging.step:
            raise CheckpointError(
                f"a checkpoint begun for step {staging.step} cannot be committed as of step {meta.step}",
                hint="begin a checkpoint at the step it is of",
            )
        try:
            (staging.path / POSITION).write_text(meta.model_dump_json(indent=1), encoding="utf-8")
            write_manifest(staging.path)
            staging.path.chmod(0o755)
            _sync_tree(staging.path)
            path = self._move_into_place(staging)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self.abandon(staging)
        self._retain(just_committed=path)
        return path

    def abandon(self, staging: Staging) -> None:
        """Remove a staging folder, if it is still there."""
        shutil.rmtree(staging.path, ignore_errors=True)

    def checkpoints(self) -> list[Path]:
        """All committed checkpoints, oldest first."""
        found = [path for path in self.root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=_step_of)

    def latest(self) -> Path | None:
        """The newest committed checkpoint, or None if there is none."""
        return max(self.checkpoints(), key=_step_of, default=None)

    def verify(self, path: Path) -> None:
        """Check that a checkpoint is what was committed, to the byte.

        Raises:
            CheckpointError: Naming the first file that is missing, added or changed, and what to do.
        """
        verify_manifest(path)
        self.load_meta(path)

    def load_meta(self, path: Path) -> RunPosition:
        """Read where the run stood at a checkpoint.

        Raises:
            CheckpointError: If the record is missing, or not one that this release can read.
        """
        file = path / POSITION
        try:
            return RunPosition.model_validate_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise CheckpointError(
                f"cannot be read as a run's position ({_in_one_line(error)})",
                where=str(file),
                hint=f"use the release that wrote it, or remove {path} and go on from an older one",
            ) from error

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, pinned ones too: what a run does that goes back to a step.

        Raises:
            CheckpointError: If there is no checkpoint of that very step to go back to, or one cannot be removed.
        """
        if not (self.root / _name_of(step)).is_dir():
            raise CheckpointError(
                f"there is no checkpoint of step {step} to go back to",
                where=str(self.root),
                hint=f"choose one of {', '.join(path.name for path in self.checkpoints()) or 'none so far'}",
            )
        for path in self.checkpoints():
            if _step_of(path) > step:
                self._remove(path)

    def _move_into_place(self, staging: Staging) -> Path:
        path = self.root / _name_of(staging.step)
        replaced: Path | None = None
        if path.exists():
            # A folder cannot replace a full one in one step. If we die in between, the next start puts it back.
            replaced = self._hidden_folder(path.name, "replaced")
            path.replace(replaced)
        try:
            staging.path.replace(path)
        except BaseException:
            if replaced is not None:
                replaced.replace(path)
            raise
        _sync(self.root)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)
        return path

    def _retain(self, *, just_committed: Path) -> None:
        """Remove what is neither among the newest, nor pinned, nor the one just committed."""
        for path in self.checkpoints()[: -self.keep]:
            if path != just_committed and not self._is_pinned(path):
                self._remove(path)

    def _is_pinned(self, path: Path) -> bool:
        """Whether a checkpoint is pinned; one whose record cannot be read is left for a person to look at."""
        try:
            return self.load_meta(path).pin is not None
        except CheckpointError:
            return True

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint so that it is never seen half-removed."""
        try:
            removed = self._hidden_folder(path.name, "removed")
            path.replace(removed)
        except OSError as error:
            raise self._unwritable(error) from error
        shutil.rmtree(removed, ignore_errors=True)

    def _hidden_folder(self, name: str, use: str) -> Path:
        """A new empty folder that says what it is for and which process made it."""
        pid = os.getpid()
        born = int(psutil.Process(pid).create_time())
        prefix = f".{name}.{use}-{socket.gethostname()}-{pid}-{born}-"
        return Path(tempfile.mkdtemp(prefix=prefix, dir=self.root))

    def _clear_leftovers(self) -> None:
        for path in self.root.iterdir():
            match = _HIDDEN.fullmatch(path.name)
            if match is None or not _is_abandoned(path, match["host"], int(match["pid"]), int(match["born"])):
                continue
            place = self.root / match["name"]
            if match["use"] == "replaced" and not place.exists() and (path / POSITION).is_file():
                path.replace(place)
            else:
                shutil.rmtree(path, ignore_errors=True)

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint cannot be written ({error})",
            where=str(self.root),
            hint="free space, lower the number of checkpoints kept, or choose another folder",
        )


def _is_abandoned(path: Path, host: str, pid: int, born: int) -> bool:
    """Whether the process that made a hidden folder is gone.

    A restarted container often gives the same process id again, so the time of its start counts as well. Of
    another machine's processes nothing can be known: theirs are left alone for a day.
    """
    if host != socket.gethostname():
        return time.time() - path.stat().st_mtime > _FOREIGN_SECONDS
    try:
        return abs(int(psutil.Process(pid).create_time()) - born) > _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True


def _in_one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))


def _name_of(step: int) -> str:
    return f"step-{step:06d}"


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _sync_tree(directory: Path) -> None:
    """Flush a folder to the disk: files first, then the folders that name them."""
    for path in sorted(directory.rglob("*"), reverse=True):
        _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
