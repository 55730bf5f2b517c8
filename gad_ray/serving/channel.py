"""How a run hands its critics to the replicas: the newest one lies in a channel, and whoever lacks it takes it.

    critic group ──► object store ◄──────────────┐ takes the state
         │ PublishedCritic, with its reference   │
         └──────────► Channel ◄── next() ── Subscriber of each replica

The run never waits for a replica: it leaves a critic in the channel and goes on. A replica asks for what it does not have,
tells with the same call what it serves, and finds the newest critic whenever it comes: later, or started anew. The channel
holds one critic; the one before is freed when nobody is taking it any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from gad_ray.errors import GadError
from gad_ray.models.critic_state import CriticState, PublishedCritic
from gad_ray.serving.served import ServedCritic
from gad_ray.serving.versions import Versions

_MAX_TROUBLES = 100
_LOST_S = 30.0
"""A replica that has not asked for so long is not there any more."""

_WAIT_S = 10.0
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """What a replica tells of itself whenever it asks.

    Attributes:
        replica: Its name.
        tried: Fingerprint of the critic that it has taken last, fit or not; None before the first.
        fingerprint: Of the critic that it serves; None if there is none yet.
        step: Optimiser steps of that critic.
        refused: Why it does not serve what it has tried; None if it does.
    """

    replica: str
    tried: str | None
    fingerprint: str | None
    step: int
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatus:
    """What there is to tell of a channel.

    Attributes:
        newest: The critic in it, without its reference.
        replicas: Those that have asked of late.
        troubles: What replicas have refused since the last look, and why.
    """

    newest: PublishedCritic | None
    replicas: tuple[ReplicaReport, ...]
    troubles: tuple[str, ...]


class Channel:
    """Holds the newest critic of a run. Its calls come from one event loop.

    Args:
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest: PublishedCritic | None = None
        self._came = asyncio.Event()
        self._replicas: dict[str, tuple[float, ReplicaReport]] = {}
        self._troubles: list[str] = []

    async def offer(self, published: PublishedCritic) -> PublishedCritic:
        """Put a critic in the place of the one before; returns the news of it, without its reference."""
        self._newest = published
        self._came.set()
        self._came = asyncio.Event()
        return replace(published, state=None)

    async def next(self, report: ReplicaReport, wait_s: float) -> PublishedCritic | None:
        """The newest critic, once it is another than the replica has tried.

        Args:
            report: Of the replica that asks.
            wait_s: Longest time to wait for one.

        Returns:
            None if none has come.
        """
        self._take_note(report)
        deadline = self._clock() + wait_s
        while self._newest is None or self._newest.fingerprint == report.tried:
            try:
                await asyncio.wait_for(self._came.wait(), max(deadline - self._clock(), 0.0))
            except TimeoutError:
                return None
        return self._newest

    async def status(self) -> ChannelStatus:
        """What there is to tell; a trouble is told once."""
        lost = self._clock() - _LOST_S
        self._replicas = {name: seen for name, seen in self._replicas.items() if seen[0] > lost}
        troubles, self._troubles = self._troubles, []
        return ChannelStatus(
            newest=None if self._newest is None else replace(self._newest, state=None),
            replicas=tuple(report for _, report in self._replicas.values()),
            troubles=tuple(troubles),
        )

    def _take_note(self, report: ReplicaReport) -> None:
        _, before = self._replicas.get(report.replica, (0.0, None))
        self._replicas[report.replica] = (self._clock(), report)
        if report.refused is None or (before is not None and before.tried == report.tried):
            return
        if len(self._troubles) < _MAX_TROUBLES:
            self._troubles.append(f"replica {report.replica} refused it: {report.refused}")


class ChannelGoneError(GadError):
    """The run that a channel belonged to is gone."""


class ChannelClient(Protocol):
    """A channel as a replica sees it."""

    async def next(self, report: ReplicaReport, wait_s: float) -> PublishedCritic | None:
        """As :meth:`Channel.next`.

        Raises:
            ChannelGoneError: If there is no such channel any more.
            ConnectionError: If it does not answer at present.
        """
        ...

    def take(self, published: PublishedCritic) -> CriticState:
        """The critic itself, out of the object store; called in a thread."""
        ...


class Subscriber:
    """Serves the newest good critic of a channel.

    A critic that is refused is not tried again: the one before goes on until the run brings another.

    Args:
        channel: Where the critics come from.
        versions: Changes what is served.
        build: Builds a critic and scores a first text; called in a thread.
        replica: Name of this replica.
        wait_s: Time between two signs of life while nothing new comes.
        retry_s: Pause before a channel that does not answer is asked again.
    """

    def __init__(
        self,
        channel: ChannelClient,
        versions: Versions,
        *,
        build: Callable[[CriticState], ServedCritic],
        replica: str,
        wait_s: float = _WAIT_S,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._channel = channel
        self._versions = versions
        self._build = build
        self._replica = replica
        self._wait_s = wait_s
        self._retry_s = retry_s
        self._tried: str | None = None

    async def look(self) -> bool:
        """Serve what is new, if something comes; returns whether it was fit.

        Raises:
            ChannelGoneError: If the run is gone.
        """
        try:
            published = await self._channel.next(self._report(), self._wait_s)
        except ConnectionError:
            await asyncio.sleep(self._retry_s)
            return False
        if published is None:
            return False
        self._tried = published.fingerprint
        return await self._versions.take(
            published.fingerprint, lambda: self._build(self._channel.take(published))
        )

    async def first(self) -> None:
        """Look until there is a critic to serve.

        Raises:
            ChannelGoneError: If the run is gone.
        """
        while not await self.look():
            pass

    async def keep_looking(self) -> None:
        """Look again and again, until cancelled.

        Raises:
            ChannelGoneError: Once the run is gone.
        """
        while True:
            await self.look()

    def _report(self) -> ReplicaReport:
        present = self._versions.present
        return ReplicaReport(
            replica=self._replica,
            tried=self._tried,
            fingerprint=None if present is None else present.fingerprint,
            step=0 if present is None else present.step,
            refused=self._versions.refused,
        )
