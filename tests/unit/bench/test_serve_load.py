"""How load is made: in closed and open loops, and by clients that wait as they are told."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from benchmarks.serve.overload import AttemptLog, PoliteClients, retry_after
from gad_ray.bench.serve.load import Request, arrivals, closed_loop, open_loop, percentiles
from gad_ray.bench.serve.texts import KINDS, draw_pairs, own_sources
from tests.processes import wait_until
from tests.unit.bench.serving import listening

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def reply(send: Send, status: int, body: bytes = b"{}", **headers: str) -> None:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})


class Held:
    """Answers nobody before so many have asked."""

    def __init__(self, count: int) -> None:
        self.missing = count
        self.all_here = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/ask":
            self.missing -= 1
            if self.missing <= 0:
                self.all_here.set()
            await self.all_here.wait()
        await reply(send, 200)


def requests(count: int) -> list[Request]:
    return [Request("/ask", b"{}", (i,)) for i in range(count)]


def test_an_open_load_sends_everything_while_no_answer_has_come() -> None:
    times = arrivals(50.0, seconds=1.0, seed=3)
    count = len(times)
    with listening(Held(count)) as server:
        load = open_loop(server.url, requests(count), times)
    assert [answer.status for answer in load.answers] == [200] * count
    # Each wait counts from when its request was due, and the last one freed them all.
    assert sorted(answer.began for answer in load.answers) == times
    assert all(answer.began + answer.seconds >= times[-1] for answer in load.answers)


def test_a_closed_load_has_as_many_under_way_as_it_should_and_sends_each_once() -> None:
    with listening(Held(4)) as server:
        load = closed_loop(server.url, requests(9), concurrency=4)
    assert sorted(answer.request.places for answer in load.answers) == [(i,) for i in range(9)]
    assert load.pairs == 9


def test_a_server_that_is_not_there_is_an_answer_without_a_status() -> None:
    load = closed_loop("http://127.0.0.1:1", requests(2), concurrency=1)
    assert [(answer.status, answer.error.split(":")[0]) for answer in load.answers] == [
        (None, "ConnectError")
    ] * 2
    assert load.pairs == 0


def test_arrivals_come_at_random_at_the_rate_that_is_asked_for() -> None:
    times = arrivals(20.0, seconds=500.0, seed=0)
    assert times == arrivals(20.0, seconds=500.0, seed=0) != arrivals(20.0, seconds=500.0, seed=1)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert len(times) == pytest.approx(10_000, rel=0.05)
    # Of exponential gaps the standard deviation is the mean.
    mean = sum(gaps) / len(gaps)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.05)


def test_percentiles_are_in_milliseconds_and_none_of_nothing() -> None:
    assert percentiles([i / 100 for i in range(101)]) == {"p50": 500, "p90": 900, "p99": 990, "max": 1000}
    assert set(percentiles([]).values()) == {None}


def test_no_two_pairs_are_alike_and_all_kinds_and_lengths_are_there() -> None:
    pairs = draw_pairs(300, seed=5, shortest=2, longest=200)
    assert pairs == draw_pairs(300, seed=5, shortest=2, longest=200)
    prompts = {pair.messages[0].content for pair in pairs}
    assert len(prompts) == len(pairs)
    assert not prompts & {
        pair.messages[0].content for pair in draw_pairs(300, seed=6, shortest=2, longest=200)
    }
    chinese = sum(any("一" <= c <= "鿿" for c in pair.response) for pair in pairs)
    sources = "\n".join(own_sources())
    code = sum(len(pair.response) >= 20 and pair.response in sources for pair in pairs)
    shares = {kind.name: kind.share for kind in KINDS}
    assert chinese == pytest.approx(300 * shares["Chinese"], rel=0.3)
    assert code >= 20
    lengths = sorted(len(pair.response) for pair in pairs)
    assert 1 <= lengths[0] <= 8
    assert 500 <= lengths[-1] <= 840


# --- Overload's clients


class Refusing:
    """Refuses every request a number of times, then gives a score."""

    def __init__(self, times: int) -> None:
        self._left: dict[bytes, int] = {}
        self._times = times
        self.num_answered = 0

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        name = dict(scope["headers"]).get(b"x-request-id", b"")
        left = self._left.setdefault(name, self._times)
        if left and name:
            self._left[name] = left - 1
            await reply(send, 429, retry_after="1")
            return
        self.num_answered += bool(name)
        version = {"fingerprint": "f", "step": 1}
        answer = {
            "id": "score-1",
            "created": 1,
            "model": "critic",
            "model_version": version,
            "truncated": False,
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
            "data": [{"index": 0, "score": 1.0, "truncated": False}],
        }
        await reply(send, 200, json.dumps(answer).encode(), content_type="application/json")


def test_polite_clients_come_again_when_they_were_told_to_and_get_their_scores() -> None:
    pairs = draw_pairs(1, seed=0, shortest=2, longest=4)
    app = Refusing(1)
    with listening(app) as server, PoliteClients(server.url, pairs, count=1) as polite:
        wait_until(lambda: app.num_answered, what="the score", deadline_s=300.0)
    assert polite.figures() == {
        "answered": 1,
        "given_up": 0,
        "attempts": 2,
        "repeated_after_refusal": 1,
        "repeated_too_early": 0,
    }


def test_an_attempt_before_its_time_is_counted() -> None:
    now = [0.0]
    network = httpx.MockTransport(lambda request: httpx.Response(429, headers={"retry-after": "3"}))
    log = AttemptLog(network, clock=lambda: now[0])
    for seconds in (0.0, 3.0, 5.9):
        now[0] = seconds
        log.handle_request(httpx.Request("POST", "http://x/", headers={"x-request-id": "one"}))
    assert log.figures() == {"attempts": 3, "repeated_after_refusal": 2, "repeated_too_early": 1}


def test_a_refusal_without_a_time_to_come_again_shows() -> None:
    with listening(Held(1)) as server:
        answered = closed_loop(server.url, requests(1), concurrency=1).answers
    assert retry_after(answered)["refused"] == 0

    async def bare(scope: Any, receive: Any, send: Send) -> None:
        await reply(send, 429)

    with listening(bare) as server:
        refused = closed_loop(server.url, requests(2), concurrency=1).answers
    assert retry_after(refused) == {
        "refused": 2,
        "with_retry_after": 0,
        "shortest_s": None,
        "longest_s": None,
    }
