"""Which critic is served: a new one takes over when it is ready, a bad one is refused, an old one can come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.service import ScoringService

_MIN_PREFIX = 8

_logger = logging.getLogger("ray.serve.gad_ray")


class SwapWatcher(Protocol):
    """Is told of new versions."""

    def version_served(self, *, fingerprint: str, step: int) -> None:
        """A critic answers from now on."""
        ...

    def swap_done(self, *, accepted: bool) -> None:
        """A new version was loaded, or refused."""
        ...


class Versions:
    """Changes the critic of a service, one change after the other.

    Args:
        service: Answers with the critic.
        load: Loads a directory's critic; called in a thread.
        keep: Earlier critics that stay in memory, to come back at once.
        watcher: Is told of every change.
    """

    def __init__(
        self,
        service: ScoringService,
        *,
        load: Callable[[Path], ServedCritic],
        keep: int,
        watcher: SwapWatcher | None = None,
    ) -> None:
        self._service = service
        self._load = load
        self._num_kept = keep + 1
        self._watcher = watcher
        present = service.present
        self._kept: dict[str, ServedCritic] = {} if present is None else {present.fingerprint: present}
        self._turn = asyncio.Lock()
        self.refused: str | None = None

    @property
    def kept(self) -> list[str]:
        """Fingerprints in memory, the one that is served last."""
        return list(self._kept)

    @property
    def present(self) -> ServedCritic | None:
        """The critic that is served, if there is one."""
        return self._service.present

    async def serve(self, wanted: str) -> bool:
        """Serve another critic once it is ready; until then, and if it is not fit, the present one goes on.

        Args:
            wanted: Directory of a checkpoint or an export; or the fingerprint, or its beginning, of a critic that is
                still in memory.

        Returns:
            Whether the wanted critic is served now; ``refused`` tells why not.
        """
        return await self.take(wanted, lambda: self._load(Path(wanted)))

    async def take(self, wanted: str, load: Callable[[], ServedCritic]) -> bool:
        """The same with another way to load it.

        Args:
            wanted: What it is called; not loaded if that is the fingerprint, or its beginning, of one in memory.
            load: Loads it; called in a thread.
        """
        async with self._turn:
            critic = self._in_memory(wanted) or await self._loaded(wanted, load)
            if critic is None:
                if self._watcher is not None:
                    self._watcher.swap_done(accepted=False)
                return False
            self.refused = None
            present = self._service.present
            changed = present is None or critic.fingerprint != present.fingerprint
            self._keep(critic)
            if changed:
                self._service.swap(self._kept[critic.fingerprint])
                _logger.warning("serving %s of step %d now", critic.fingerprint[:16], critic.step)
                if self._watcher is not None:
                    if present is not None:
                        self._watcher.swap_done(accepted=True)
                    self._watcher.version_served(fingerprint=critic.fingerprint, step=critic.step)
            return True

    def _in_memory(self, wanted: str) -> ServedCritic | None:
        if len(wanted) < _MIN_PREFIX:
            return None
        found = [critic for fingerprint, critic in self._kept.items() if fingerprint.startswith(wanted)]
        return found[0] if len(found) == 1 else None

    async def _loaded(self, wanted: str, load: Callable[[], ServedCritic]) -> ServedCritic | None:
        try:
            return await asyncio.to_thread(load)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the critic that is served goes on
            self.refused = f"{wanted}: {error}"
            _logger.error("a critic is refused, and what is served goes on: %s", self.refused)
            return None

    def _keep(self, critic: ServedCritic) -> None:
        same = self._kept.pop(critic.fingerprint, critic)
        self._kept[critic.fingerprint] = same
        while len(self._kept) > self._num_kept:
            del self._kept[next(iter(self._kept))]
