"""Load on a server, from this process: so many requests at once, or so many a second whatever becomes of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

_TIMEOUT_S = 300.0
_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, as bytes that are made before any clock runs.

    Attributes:
        path: Of the URL.
        body: JSON.
        places: Which of the pairs it asks about.
    """

    path: str
    body: bytes
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        request: The request.
        began: When it was to be sent, in seconds since the load began.
        seconds: From then to the answer's last byte.
        status: Of HTTP; None if there was no answer.
        content: The body; empty without an answer.
        retry_after: The header of that name.
        error: Why there was no answer.
    """

    request: Request
    began: float
    seconds: float
    status: int | None
    content: bytes = b""
    retry_after: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """The answers to a load, and how long all of it took.

    Attributes:
        answers: In the order in which they came.
        seconds: From the first request to the last answer.
    """

    answers: list[Answer]
    seconds: float

    @property
    def pairs(self) -> int:
        """Pairs that were scored."""
        return sum(len(answer.request.places) for answer in self.answers if answer.status == 200)


def closed_loop(url: str, requests: Sequence[Request], *, concurrency: int) -> Load:
    """Send requests, so many at once: the next one when an answer has come.

    Args:
        url: The server.
        requests: Each is sent once.
        concurrency: Requests under way.
    """

    async def run() -> Load:
        waiting = iter(requests)
        async with _client(url) as client:
            course = _Course(client)

            async def work() -> None:
                for request in waiting:
                    await course.ask(request, due=course.now())

            await asyncio.gather(*(work() for _ in range(concurrency)))
            return course.done()

    return asyncio.run(run())


def open_loop(url: str, requests: Sequence[Request], times: Sequence[float]) -> Load:
    """Send requests at times that no answer changes, as of :func:`arrivals`, and wait for all answers.

    A time counts from when its request was to be sent: a server that falls behind cannot hide it.

    Args:
        url: The server.
        requests: Each is sent once.
        times: When each is to be sent, in seconds from the beginning.
    """

    async def run() -> Load:
        async with _client(url) as client:
            course = _Course(client)
            await course.send_at(times, requests)
            return course.done()

    return asyncio.run(run())


def arrivals(per_second: float, *, seconds: float, seed: int) -> list[float]:
    """Times of a Poisson process, in seconds from its beginning."""
    draw = random.Random(seed)
    times: list[float] = []
    time_s = draw.expovariate(per_second)
    while time_s < seconds:
        times.append(time_s)
        time_s += draw.expovariate(per_second)
    return times


class _Course:
    """A load under way."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._start = time.perf_counter()
        self._answers: list[Answer] = []

    def now(self) -> float:
        return time.perf_counter() - self._start

    def done(self) -> Load:
        return Load(self._answers, self.now())

    async def send_at(self, times: Sequence[float], requests: Sequence[Request]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for due, request in zip(times, requests, strict=True):
                await asyncio.sleep(max(0.0, due - self.now()))
                tasks.create_task(self.ask(request, due=due))

    async def ask(self, request: Request, *, due: float) -> None:
        self._answers.append(await plain_answer(self._client, request, due=due, now=self.now))


async def plain_answer(
    client: httpx.AsyncClient, request: Request, *, due: float, now: Callable[[], float]
) -> Answer:
    """Send a request once, and take whatever comes.

    Args:
        client: Sends it.
        request: The request.
        due: When it was to be sent.
        now: Tells the time, on the same clock.
    """
    try:
        reply = await client.post(
            request.path, content=request.body, headers={"content-type": "application/json"}
        )
    except httpx.TransportError as error:
        return Answer(request, due, now() - due, None, error=f"{type(error).__name__}: {error}")
    return Answer(
        request, due, now() - due, reply.status_code, reply.content, reply.headers.get("retry-after")
    )


def percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """Percentiles of times, in milliseconds; None of no times."""
    names = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    if not seconds:
        return dict.fromkeys(names)
    found = np.percentile(np.asarray(seconds), list(names.values()))
    return {name: round(float(value) * _MS, 1) for name, value in zip(names, found, strict=True)}


def _client(url: str) -> httpx.AsyncClient:
    # As many connections as requests: the load must not wait for itself.
    limits: Any = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits)
