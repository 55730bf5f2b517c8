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

from gad_ray.batch import PublishedCritic

_MAX_TROUBLES = 100
_LOST_S = 30.0
"""A replica that has not asked for so long is not there any more."""


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
