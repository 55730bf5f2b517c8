"""Hears, from beside a run, what became of its published critics and how its endpoint is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from gad_ray.batch import PublishedCritic
from gad_ray.errors import GadError
from gad_ray.serving.channel import ChannelStatus

_LOOK_EVERY_S = 1.0
_END_S = 10.0


class EndpointWatch:
    """A thread that hears what became of published critics, and how the endpoint is.

    Args:
        status: What the channel tells; may wait and fail.
        trouble: What Serve says of an application that fails; may wait and fail.
        every_s: Time between two looks.
    """

    def __init__(
        self,
        *,
        status: Callable[[], ChannelStatus],
        trouble: Callable[[], str | None],
        every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._status = status
        self._trouble = trouble
        self._every_s = every_s
        self._offers: deque[Callable[[], PublishedCritic | None]] = deque()
        self._troubles: deque[str] = deque()
        self._told: dict[str, str | None] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="endpoint-watch", daemon=True)
        self.published: PublishedCritic | None = None
        self.channel = ChannelStatus(newest=None, replicas=(), troubles=())

    @property
    def is_served(self) -> bool:
        """Whether a replica has a critic."""
        return any(replica.fingerprint is not None for replica in self.channel.replicas)

    @property
    def has_lost(self) -> bool:
        """Whether the channel has nothing of what was published: its process was lost, and began anew."""
        return self.published is not None and self.channel.newest is None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def expect(self, settled: Callable[[], PublishedCritic | None]) -> None:
        """A critic is on its way.

        Args:
            settled: Gives the news of it, None while there is none, and raises where it failed.
        """
        self._offers.append(settled)

    def take_troubles(self) -> list[str]:
        """What has gone wrong since the last call."""
        return [self._troubles.popleft() for _ in range(len(self._troubles))]

    def look(self) -> None:
        """Look once."""
        self._try("publishing the critic", self._settle)
        self._try("its channel", self._ask_channel)
        self._try("Ray Serve", self._ask_serve)

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join(_END_S)

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()

    def _try(self, what: str, look: Callable[[], None]) -> None:
        if self._ended.is_set():
            return
        try:
            look()
        # The one border of the endpoint: whatever is wrong with it, the run is worth more.
        except Exception as error:  # noqa: BLE001
            self._note(what, f"{what}: {error}")
        else:
            self._told[what] = None

    def _settle(self) -> None:
        while self._offers:
            news = self._offers.popleft()
            found = news()
            if found is None:
                self._offers.appendleft(news)
                return
            self.published = found

    def _ask_channel(self) -> None:
        self.channel = self._status()
        self._troubles.extend(self.channel.troubles)

    def _ask_serve(self) -> None:
        told = self._trouble()
        if told:
            raise GadError(told)

    def _note(self, what: str, text: str) -> None:
        """A trouble that lasts is told once."""
        if self._told.get(what) != text:
            self._told[what] = text
            self._troubles.append(text)
