"""How the workers of a fit speak to its driver: they ask, the driver answers.

Ray Train runs the workers on its own and tells the driver nothing before all is over. Here every step is told as
it ends, and the driver has its say: where to begin, whether to stop, where to save. Only small values pass.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from gad_ray.batch import Float32, Metrics
from gad_ray.errors import GadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where to go on: a committed checkpoint's folder, its step, and its position in the data."""

    checkpoint: str
    step: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Rank 0 of a group of workers that was just started. The answer: the :class:`Position`; None is the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A rank has loaded its model. No answer."""

    rank: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """Rank 0 says what it is about to do. No answer."""

    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NllBefore:
    """[held-out prompts] NLL (nats a token) of the teacher's text under the base policy. No answer."""

    values: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """A step is trained. The answer: whether to stop here."""

    step: int
    metrics: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRequest:
    """Rank 0 is to save. The answer: the folder to write into."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The folder of the last :class:`SaveRequest` is filled. The answer comes when it is committed."""

    step: int
    policy_version: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The model is written. [held-out prompts] NLL of the teacher's text under it, None without any. No answer."""

    nll: Float32 | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A rank cannot go on, and would not if it were started anew. No answer."""

    rank: int
    error: GadError


Request = Begin | Joined | Doing | NllBefore | StepDone | SaveRequest | Saved | Exported | Failed


class Mailbox:
    """The Ray actor between workers and driver; requests are answered one after the other."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[int, Request]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()

    @ray.method
    async def ask(self, request: Request) -> Any:
        """Hand a request in and wait for its answer."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._waiting.put((number, request))
        return await self._answers[number]

    @ray.method
    async def take(self, timeout_s: float) -> list[tuple[int, Request]]:
        """The oldest request that was not taken yet, with its number; empty if none comes in time."""
        try:
            return [await asyncio.wait_for(self._waiting.get(), timeout_s)]
        except TimeoutError:
            return []

    @ray.method
    async def answer(self, number: int, value: Any) -> None:
        """Answer a request; its asker may have died meanwhile."""
        asked = self._answers.pop(number)
        if not asked.cancelled():
            asked.set_result(value)
