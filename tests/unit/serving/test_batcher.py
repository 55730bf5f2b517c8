import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest

from gad_ray.config.endpoint import BatchSettings
from gad_ray.models.pairs import TokenRow
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.forward_pool import Passes, passes_at_once
from gad_ray.serving.application.loaded_critic import PreparedPair, RowScore
from gad_ray.serving.application.throughput_estimate import ArrivalPace, ScoringPace

T = TypeVar("T")


def prepared(*ids: int) -> PreparedPair:
    row = TokenRow(ids=np.asarray(ids, dtype=np.int32), start=0)
    return PreparedPair(row=row, key=row.ids.tobytes(), truncated=False)


def answered(prompt: int, *ids: int, tokens: int = 40) -> PreparedPair:
    """A row with a prompt before it."""
    row = TokenRow(ids=np.asarray([prompt] * tokens + list(ids), dtype=np.int32), start=tokens)
    return PreparedPair(row=row, key=row.ids.tobytes(), truncated=False)


def texts(count: int, *, tokens: int = 10, first: int = 0) -> list[PreparedPair]:
    return [prepared(*[first + i] * tokens) for i in range(count)]


@dataclass
class Scorer:
    """Scores the first token; holds every pass until it is let go, if it is told to."""

    fingerprint: str = "one"
    offset: float = 0.0
    held: threading.Event | None = None
    fails_on: int | None = None
    end_to_end: bool = False
    batches: list[list[TokenRow]] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)

    def score_rows(self, rows: Sequence[TokenRow]) -> list[RowScore]:
        self.batches.append(list(rows))
        self.begun.set()
        if self.held is not None:
            assert self.held.wait(30)
        if self.fails_on is not None and any(int(row.ids[0]) == self.fails_on for row in rows):
            raise RuntimeError("out of memory")
        return [
            RowScore(float(row.ids[0]) + self.offset, np.zeros(len(row), dtype=np.float32)) for row in rows
        ]

    @property
    def num_scored(self) -> int:
        return sum(len(batch) for batch in self.batches)


@dataclass
class Watcher:
    batches: list[dict[str, Any]] = field(default_factory=list)
    queue: list[tuple[int, int]] = field(default_factory=list)
    queue_seconds: list[float] = field(default_factory=list)
    spared: list[tuple[int, int]] = field(default_factory=list)

    def batch_done(self, **told: Any) -> None:
        self.batches.append(told)

    def queue_changed(self, *, requests: int, tokens: int, seconds: float) -> None:
        self.queue.append((requests, tokens))
        self.queue_seconds.append(seconds)

    def rows_spared(self, *, equal: int, cached: int) -> None:
        self.spared.append((equal, cached))


def use(
    call: Callable[[Batcher], Awaitable[T]],
    *,
    tokens: int = 10_000,
    requests: int = 100,
    watcher: Watcher | None = None,
    passes: Passes | None = None,
    **settings: Any,
) -> T:
    async def run() -> T:
        batcher = Batcher(
            BatchSettings(**{"max_batch_tokens": 100, "max_wait_s": 0.0, **settings}),
            max_queued_tokens=tokens,
            max_queued_requests=requests,
            watcher=watcher,
            passes=passes,
        )
        try:
            return await call(batcher)
        finally:
            await batcher.close()

    return asyncio.run(run())


async def scores_of(
    batcher: Batcher, scorer: Scorer, pairs: Sequence[PreparedPair], timeout_s: float = 30.0
) -> list[float]:
    return [found.score for found in await batcher.submit(scorer, pairs, timeout_s=timeout_s)]


def begin(
    batcher: Batcher, scorer: Scorer, pairs: Sequence[PreparedPair], **more: Any
) -> "asyncio.Task[list[float]]":
    return asyncio.get_running_loop().create_task(scores_of(batcher, scorer, pairs, **more))


async def until_begun(scorer: Scorer) -> None:
    await asyncio.get_running_loop().run_in_executor(None, scorer.begun.wait, 30)


async def until_queued(batcher: Batcher, requests: int) -> None:
    async with asyncio.timeout(30):
        while len(batcher._jobs) < requests:
            await asyncio.sleep(0)


def test_everyone_gets_the_scores_of_their_own_texts():
    scorer = Scorer()

    async def call(batcher: Batcher) -> list[list[float]]:
        return await asyncio.gather(*[scores_of(batcher, scorer, texts(7, first=100 * i)) for i in range(20)])

    assert use(call) == [[100.0 * i + j for j in range(7)] for i in range(20)]


def test_a_batch_keeps_to_the_token_budget_with_its_padding_and_holds_rows_of_like_length():
    scorer = Scorer()
    pairs = [prepared(*[i] * (1 + (i * 37) % 50)) for i in range(40)]
    use(lambda batcher: scores_of(batcher, scorer, pairs))
    assert scorer.num_scored == 40
    for batch in scorer.batches:
        lengths = [len(row) for row in batch]
        assert len(lengths) * max(lengths) <= 100
        assert lengths == sorted(lengths, reverse=True)


def test_a_row_above_the_budget_is_scored_alone():
    scorer = Scorer()
    assert use(lambda batcher: scores_of(batcher, scorer, [*texts(3), prepared(*[9] * 500)])) == [
        0.0,
        1.0,
        2.0,
        9.0,
    ]
    assert [len(batch) for batch in scorer.batches if len(batch[0]) == 500] == [1]


def test_equal_rows_are_scored_once_within_a_request_and_across_waiting_requests():
    held = threading.Event()
    scorer, watcher = Scorer(held=held), Watcher()

    async def call(batcher: Batcher) -> list[list[float]]:
        first = begin(batcher, scorer, texts(1, first=50))
        await until_begun(scorer)
        others = [begin(batcher, scorer, [*texts(2), *texts(2)]) for _ in range(3)]
        await until_queued(batcher, 4)
        held.set()
        return list(await asyncio.gather(first, *others))

    assert use(call, watcher=watcher) == [[50.0], *[[0.0, 1.0, 0.0, 1.0]] * 3]
    assert scorer.num_scored == 3
    assert sum(equal for equal, _ in watcher.spared) == 3 * 2 + 2 * 2


def test_requests_that_came_during_a_pass_share_the_next_one():
    held = threading.Event()
    scorer = Scorer(held=held)

    async def call(batcher: Batcher) -> None:
        first = begin(batcher, scorer, texts(1, first=50))
        await until_begun(scorer)
        others = [begin(batcher, scorer, texts(1, first=i)) for i in range(5)]
        await until_queued(batcher, 6)
        held.set()
        await asyncio.gather(first, *others)

    use(call)
    assert [len(batch) for batch in scorer.batches] == [1, 5]


def test_a_request_of_many_rows_does_not_keep_a_small_one_waiting():
    held = threading.Event()
    scorer = Scorer(held=held)

    async def call(batcher: Batcher) -> None:
        large = begin(batcher, scorer, texts(500, first=1000))
        await until_begun(scorer)
        small = begin(batcher, scorer, texts(1))
        await until_queued(batcher, 2)
        held.set()
        await small
        assert not large.done()
        assert scorer.num_scored < 100
        await large

    use(call)
    assert scorer.num_scored == 501


def test_no_batch_holds_rows_of_two_critics_and_each_scores_what_came_while_it_was_served():
    held = threading.Event()
    old, new = Scorer("old", held=held), Scorer("new", offset=0.5, held=held)

    async def call(batcher: Batcher) -> list[list[float]]:
        first = begin(batcher, old, texts(1, first=50))
        await until_begun(old)
        others = [begin(batcher, old if i % 2 else new, texts(3, first=10 * i)) for i in range(6)]
        await until_queued(batcher, 7)
        held.set()
        return list(await asyncio.gather(first, *others))

    found = use(call)
    assert found[1:] == [[10.0 * i + j + (0.0 if i % 2 else 0.5) for j in range(3)] for i in range(6)]
    assert old.num_scored == 1 + 9
    assert new.num_scored == 9


def test_rows_under_one_prompt_go_into_one_pass_which_counts_the_prompt_once():
    watcher = Watcher()
    scorer = Scorer(end_to_end=True)
    pairs = [answered(1 + i % 2, 5 + i, tokens=40) for i in range(6)]
    use(lambda batcher: scores_of(batcher, scorer, pairs), max_batch_tokens=60, watcher=watcher)
    found = [(sorted({int(row.ids[0]) for row in batch}), len(batch)) for batch in scorer.batches]
    # A prompt of 40 tokens and three answers: 43 tokens are computed.
    assert found == [([1], 3), ([2], 3)]


def test_rows_that_are_padded_are_batched_by_length_whatever_their_prompt():
    scorer = Scorer()
    pairs = [answered(1 + i % 2, 5 + i, tokens=40) for i in range(6)]
    use(lambda batcher: scores_of(batcher, scorer, pairs), max_batch_tokens=1000)
    assert [len(batch) for batch in scorer.batches] == [6]


def test_rows_that_go_end_to_end_fill_even_batches_without_padding():
    watcher = Watcher()
    scorer = Scorer(end_to_end=True)
    lengths = [60, 50, 40, 30, 20, 10, 10, 10]
    pairs = [prepared(*[i] * length) for i, length in enumerate(lengths)]
    found = use(lambda b: scores_of(b, scorer, pairs), max_batch_tokens=100, watcher=watcher)
    assert found == [float(i) for i in range(8)]
    assert [sum(len(row) for row in batch) for batch in scorer.batches] == [80, 80, 70]
    assert [told["padded_tokens"] for told in watcher.batches] == [80, 80, 70]


def test_rows_that_go_end_to_end_share_out_among_passes_that_are_made_at_once():
    scorer = Scorer(end_to_end=True)

    async def call(batcher: Batcher) -> list[float]:
        return await scores_of(batcher, scorer, texts(30))

    use(call, max_batch_tokens=1000, passes=Passes(2, threads=2))
    assert sorted(len(batch) for batch in scorer.batches) == [15, 15]
    scorer.batches.clear()
    use(lambda batcher: scores_of(batcher, scorer, texts(20)), max_batch_tokens=1000, passes=Passes(2))
    assert [len(batch) for batch in scorer.batches] == [20], "too few for two"


# --- Back-pressure


@pytest.mark.parametrize("limits", [{"requests": 2}, {"tokens": 60}])
def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(limits: dict[str, int]):
    held = threading.Event()
    scorer, watcher = Scorer(held=held), Watcher()

    async def call(batcher: Batcher) -> ApiError:
        waiting = [begin(batcher, scorer, texts(3, first=10 * i)) for i in range(2)]
        await until_queued(batcher, 2)
        with pytest.raises(ApiError) as caught:
            await batcher.submit(scorer, texts(1, first=90), timeout_s=30.0)
        held.set()
        await asyncio.gather(*waiting)
        await batcher.submit(scorer, texts(1, first=90), timeout_s=30.0)
        return caught.value

    error = use(call, watcher=watcher, **limits)
    assert (error.status, error.code, error.headers["retry-after"]) == (429, "queue_full", "1")
    assert watcher.queue[-1] == (0, 0)
    assert max(tokens for _, tokens in watcher.queue) == 60


def test_a_request_above_the_queues_bound_is_scored_when_nobody_waits():
    scorer = Scorer()
    assert len(use(lambda batcher: scores_of(batcher, scorer, texts(50)), tokens=100)) == 50


async def one_second_a_token(
    scorer: Scorer, held: threading.Event, watcher: Watcher | None = None
) -> tuple[Batcher, list[float]]:
    """A batcher that has seen its critic take so long, and its clock; the critic is held from then on."""
    now = [0.0]
    batcher = Batcher(
        BatchSettings(max_batch_tokens=50),
        max_queued_tokens=100_000,
        max_queued_requests=100,
        watcher=watcher,
        clock=lambda: now[0],
    )
    first = begin(batcher, scorer, texts(5))
    await until_begun(scorer)
    now[0] += 50.0  # the rows have ten each
    held.set()
    await first
    held.clear()
    return batcher, now


def test_what_could_not_be_answered_in_time_is_refused_before_it_waits():
    held = threading.Event()
    scorer = Scorer(held=held)

    async def run() -> ApiError:
        batcher, _ = await one_second_a_token(scorer, held)
        others = [begin(batcher, scorer, texts(1, first=20 + i), timeout_s=1000.0) for i in range(9)]
        await until_queued(batcher, 9)
        with pytest.raises(ApiError) as caught:
            batcher.check_room(timeout_s=60.0)
        # 90 s are expected: what has little more than that may come too late.
        with pytest.raises(ApiError, match="9 requests"):
            batcher.check_room(timeout_s=175.0)
        batcher.check_room(timeout_s=185.0)
        held.set()
        await asyncio.gather(*others)
        await batcher.close()
        return caught.value

    error = asyncio.run(run())
    assert (error.status, error.headers["retry-after"]) == (429, "45")


def test_its_load_is_the_time_that_waiting_work_takes_and_the_share_of_the_time_it_worked():
    held = threading.Event()
    scorer = Scorer(held=held)
    watcher = Watcher()

    async def run() -> None:
        batcher, now = await one_second_a_token(scorer, held, watcher)
        assert batcher.take_load() == (0.0, pytest.approx(1.0))
        others = [begin(batcher, scorer, texts(1, first=20 + i), timeout_s=1000.0) for i in range(9)]
        await until_queued(batcher, 9)
        now[0] += 5.0
        assert batcher.take_load() == (pytest.approx(90.0), 0.0)
        assert max(watcher.queue_seconds) == pytest.approx(90.0)
        held.set()
        await asyncio.gather(*others)
        assert batcher.take_load()[0] == watcher.queue_seconds[-1] == 0.0
        await batcher.close()

    asyncio.run(run())


def test_a_large_request_that_waits_does_not_shut_out_a_small_one():
    held = threading.Event()
    scorer = Scorer(held=held)

    async def run() -> None:
        batcher, _ = await one_second_a_token(scorer, held)
        large = begin(batcher, scorer, texts(50, first=20), timeout_s=1000.0)
        await until_queued(batcher, 1)
        batcher.check_room(tokens=10, timeout_s=85.0)  # its own tokens and a turn of the other: 45 s
        with pytest.raises(ApiError, match="1 requests with 500 tokens are waiting"):
            batcher.check_room(tokens=100, timeout_s=85.0)
        held.set()
        await large
        await batcher.close()

    asyncio.run(run())


def test_what_is_too_much_for_its_time_even_alone_is_refused_at_once_and_one_row_never_is():
    held = threading.Event()
    scorer = Scorer(held=held)

    async def run() -> ApiError:
        batcher, now = await one_second_a_token(scorer, held)
        held.set()
        with pytest.raises(ApiError) as caught:
            await batcher.submit(scorer, texts(10, first=20), timeout_s=60.0)
        scored = scorer.num_scored
        assert await scores_of(batcher, scorer, texts(1, tokens=200, first=50), timeout_s=60.0) == [50.0]
        assert scorer.num_scored == scored + 1
        # Within its margin it is tried: the pace is a guess.
        assert len(await scores_of(batcher, scorer, texts(4, first=60), timeout_s=30.0)) == 4
        now[0] += 1000.0
        assert len(await scores_of(batcher, scorer, texts(10, first=20), timeout_s=60.0)) == 10
        await batcher.close()
        return caught.value

    error = asyncio.run(run())
    assert (error.status, error.code, error.headers) == (413, "deadline_unreachable", {})
    assert "100 tokens would take about 100 s" in error.message
    assert "send about 60 tokens at once" in error.message


def test_a_request_whose_time_is_over_is_told_so_and_its_rows_are_not_scored():
    held = threading.Event()
    scorer = Scorer(held=held)

    async def call(batcher: Batcher) -> ApiError:
        first = begin(batcher, scorer, texts(1))
        await until_begun(scorer)
        with pytest.raises(ApiError) as caught:
            await batcher.submit(scorer, texts(5, first=10), timeout_s=0.01)
        held.set()
        await first
        return caught.value

    error = use(call)
    assert (error.status, error.code) == (408, "deadline_exceeded")
    assert scorer.num_scored == 1


def test_a_caller_that_goes_away_leaves_the_queue():
    held = threading.Event()
    scorer, watcher = Scorer(held=held), Watcher()

    async def call(batcher: Batcher) -> None:
        first = begin(batcher, scorer, texts(1))
        await until_begun(scorer)
        gone = begin(batcher, scorer, texts(5, first=10))
        await until_queued(batcher, 2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        held.set()
        await first

    use(call, watcher=watcher)
    assert scorer.num_scored == 1
    assert watcher.queue[-1] == (0, 0)


def test_closing_answers_what_waits_and_takes_nothing_new():
    held = threading.Event()
    scorer = Scorer(held=held)

    async def call(batcher: Batcher) -> list[float]:
        waiting = begin(batcher, scorer, texts(30))
        await until_begun(scorer)
        closing = asyncio.get_running_loop().create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="shutting down") as caught:
            await batcher.submit(scorer, texts(1, first=90), timeout_s=30.0)
        assert caught.value.status == 503
        held.set()
        await closing
        return await waiting

    assert use(call) == [float(i) for i in range(30)]


# --- Failures


def test_a_pass_that_fails_ends_its_own_requests_only():
    scorer = Scorer(fails_on=5)

    async def call(batcher: Batcher) -> None:
        with pytest.raises(ApiError, match="RuntimeError") as caught:
            await batcher.submit(scorer, texts(1, first=5), timeout_s=30.0)
        assert caught.value.status == 500
        assert await scores_of(batcher, scorer, texts(1, first=6)) == [6.0]

    use(call)


def test_a_score_that_is_not_finite_is_never_given():
    scorer = Scorer(offset=float("nan"))

    async def call(batcher: Batcher) -> None:
        with pytest.raises(ApiError, match="nan in place of a score"):
            await batcher.submit(scorer, texts(2), timeout_s=30.0)

    use(call, cache_tokens=1000)


# --- The cache


def test_the_cache_answers_equal_text_of_the_same_critic_within_its_bound():
    scorer, other, watcher = Scorer(), Scorer("two", offset=0.5), Watcher()

    async def call(batcher: Batcher) -> None:
        assert await scores_of(batcher, scorer, texts(3)) == [0.0, 1.0, 2.0]
        assert await scores_of(batcher, scorer, texts(3)) == [0.0, 1.0, 2.0]
        assert scorer.num_scored == 3
        assert await scores_of(batcher, other, texts(3)) == [0.5, 1.5, 2.5]
        assert await scores_of(batcher, scorer, texts(1)) == [0.0]
        assert scorer.num_scored == 4, "the other critic's scores have taken its place"

    use(call, cache_tokens=50, watcher=watcher)
    assert sum(cached for _, cached in watcher.spared) == 3


def test_nothing_is_kept_without_a_cache():
    scorer = Scorer()

    async def call(batcher: Batcher) -> None:
        await scores_of(batcher, scorer, texts(3))
        await scores_of(batcher, scorer, texts(3))

    use(call)
    assert scorer.num_scored == 6


# --- The wait


def test_nobody_waits_for_company_that_is_not_to_be_expected():
    pace = ArrivalPace(0.01)
    assert pace.wait_s(queued_tokens=1, budget=100) == 0.0
    for now in (0.0, 1.0, 2.0):
        pace.arrived(now)
    assert pace.wait_s(queued_tokens=1, budget=100) == 0.0


def test_the_wait_follows_the_traffic_and_ends_with_a_full_batch():
    pace = ArrivalPace(0.01)
    for i in range(100):
        pace.arrived(0.001 * i)
    assert pace.wait_s(queued_tokens=1, budget=100) == pytest.approx(0.002)
    assert pace.wait_s(queued_tokens=100, budget=100) == 0.0
    for i in range(100):
        pace.arrived(1.0 + 0.008 * i)
    assert pace.wait_s(queued_tokens=1, budget=100) == 0.01


def test_the_pace_of_scoring_is_that_of_late():
    pace = ScoringPace(100)
    assert pace.seconds_for(1000) == 0.0
    for seconds in (7.0, 1.0):
        for _ in range(60):
            pace.scored(100, seconds, now=5.0)
        assert pace.seconds_for(1000) == pytest.approx(10.0 * seconds, rel=1e-4)
    assert pace.seconds_for(1000, now=60.0) == pytest.approx(10.0, rel=1e-4)
    assert pace.seconds_for(1000, now=66.0) == 0.0, "an old pace forbids nothing"


def test_batches_of_a_few_tokens_do_not_tell_the_pace_of_full_ones():
    pace = ScoringPace(1024)
    pace.scored(20, 0.5, now=1.0)  # the first of its process
    assert pace.seconds_for(10_000) == 0.0, "one small batch tells nothing"
    for _ in range(100):
        pace.scored(20, 0.05, now=2.0)
    assert pace.seconds_for(10_000) < 6.0, "each of twenty tokens took 2.5 ms, for the pass that it needed"
    for _ in range(5):
        pace.scored(1000, 0.5, now=3.0)
        pace.scored(20, 0.05, now=3.0)
    assert pace.seconds_for(10_000) == pytest.approx(5.0, rel=0.1)


# --- Several passes at once


class Meeting(Scorer):
    """A pass ends only when another is under way beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(2)

    def score_rows(self, rows: Sequence[TokenRow]) -> list[RowScore]:
        self.both.wait(30)
        return super().score_rows(rows)


def test_two_passes_are_under_way_at_once_and_every_row_is_scored_once() -> None:
    meeting = Meeting()
    pairs = texts(40)  # four batches of ten

    async def ask(batcher: Batcher) -> list[float]:
        return await scores_of(batcher, meeting, pairs)

    assert use(ask, passes=Passes(2)) == [float(i) for i in range(40)]
    assert [len(batch) for batch in meeting.batches] == [10] * 4


def test_requests_of_two_critics_meet_in_time_and_in_no_batch() -> None:
    meeting = Meeting()
    other = Meeting()
    other.fingerprint, other.offset, other.both = "two", 0.5, meeting.both

    async def ask(batcher: Batcher) -> list[list[float]]:
        return await asyncio.gather(
            scores_of(batcher, meeting, texts(10)), scores_of(batcher, other, texts(10))
        )

    first, second = use(ask, passes=Passes(2))
    assert second == [score + 0.5 for score in first]
    assert [scorer.num_scored for scorer in (meeting, other)] == [10, 10]


def test_a_pass_that_fails_leaves_the_one_beside_it_alone() -> None:
    failing, meeting = Meeting(), Meeting()
    failing.fails_on, meeting.both = 5, failing.both

    async def ask(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(
            scores_of(batcher, failing, texts(10)),
            scores_of(batcher, meeting, texts(10, first=50)),
            return_exceptions=True,
        )

    failed, scored = use(ask, passes=Passes(2))
    assert isinstance(failed, ApiError)
    assert failed.status == 500
    assert scored == [float(i) for i in range(50, 60)]


def test_a_pass_has_all_threads_when_it_is_alone_and_its_share_when_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", given.append)

    async def ask(batcher: Batcher) -> None:
        await scores_of(batcher, Scorer(), texts(10))
        assert given == [4]
        given.clear()
        await scores_of(batcher, Meeting(), texts(20))
        assert given == [2, 2]

    use(ask, passes=Passes(2, threads=4))


def test_the_pace_is_that_of_all_passes_together() -> None:
    """Two passes of 10 s at once, each of 100 tokens, score 20 tokens a second."""

    class Slow(Meeting):
        def score_rows(self, rows: Sequence[TokenRow]) -> list[RowScore]:
            scores = super().score_rows(rows)
            self.both.wait(30)
            clock[0] = 10.0
            return scores

    clock = [0.0]

    async def expected() -> float:
        batcher = Batcher(
            BatchSettings(max_batch_tokens=100, max_wait_s=0.0),
            max_queued_tokens=10_000,
            max_queued_requests=100,
            passes=Passes(2),
            clock=lambda: clock[0],
        )
        try:
            await scores_of(batcher, Slow(), texts(20))
            with pytest.raises(ApiError, match="would take about") as refused:
                await scores_of(batcher, Scorer(), texts(100), timeout_s=1.0)
            return float(refused.value.message.split("about ")[1].split(" s")[0])
        finally:
            await batcher.close()

    # 1,000 tokens; the estimate leans on what came last, which here took no time of its own.
    assert asyncio.run(expected()) == pytest.approx(50.0, rel=0.15)


@pytest.mark.parametrize(
    ("on_gpu", "threads", "passes"), [(True, 16, 1), (False, 1, 1), (False, 2, 2), (False, 16, 2)]
)
def test_passes_go_in_pairs_on_a_cpu_with_threads_for_both(on_gpu: bool, threads: int, passes: int) -> None:
    assert passes_at_once(on_gpu=on_gpu, threads=threads) == passes
