"""A replica's side of a run's channel: it takes what is new, and serves it if it is fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from gad_ray.batch import PublishedCritic
from gad_ray.errors import GadError
from gad_ray.models.critic_state import CriticState
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.versions import Versions
from gad_ray.serving.deployment.channel import ReplicaReport

_WAIT_S = 10.0
_RETRY_S = 1.0


class ChannelGoneError(GadError):
    """The run that a channel belonged to is gone."""


class ChannelClient(Protocol):
    """A channel as a replica sees it."""

    async def next(self, report: ReplicaReport, wait_s: float) -> PublishedCritic | None:
        """As :meth:`gad_ray.serving.deployment.channel.Channel.next`.

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
