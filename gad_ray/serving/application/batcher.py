"""Many requests, one critic: rows of several requests are scored together, and every caller gets its own.

    submit() ──► queue, bounded in tokens and requests ──► round: the oldest rows of one critic
                                                              │ equal rows once, a prompt once
    the caller's future ◄── its rows are complete ◄── batches of a token budget, on a CPU two at a time

A full queue refuses at once. A row belongs to the critic that was served when its request came: what is loaded
later never scores it, and no batch holds rows of two critics.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gad_ray.client.schema import DEADLINE_UNREACHABLE
from gad_ray.config.endpoint import BatchSettings
from gad_ray.models.pairs import deduplicate
from gad_ray.serving.application.batch_planner import ROUND_BATCHES, plan_round
from gad_ray.serving.application.cache import ScoreCache
from gad_ray.serving.application.errors import ApiError, deadline_exceeded, queue_full, unavailable
from gad_ray.serving.application.forward_pool import Passes
from gad_ray.serving.application.jobs import Job, Row, deliver, fail, failed_scoring
from gad_ray.serving.application.loaded_critic import PreparedPair, RowScore, RowScorer
from gad_ray.serving.application.throughput_estimate import ArrivalPace, ScoringPace

_logger = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 1024
"""On a CPU larger passes are slower: what is between two layers no longer fits its caches."""

GPU_BATCH_TOKENS = 4096

_TURNS_PER_ROUND = 8
"""In a round callers take turns, so that one who brings a thousand rows does not keep the others waiting."""

_MIN_RETRY_S = 1.0

_SAFE = 0.7
"""A request waits only if it is expected to be answered in this share of its time: the pace of late is a guess, and
what comes too late has been scored for nobody."""

_SLOWER = 1.4
"""What waits may take so many times as long as at the pace of late: where many are refused from now on, that costs the
critic time."""

_HOPELESS = 1.5
"""A request that would take so many times the time it has, all alone, is not begun: its scores would be lost."""


class BatchWatcher(Protocol):
    """Is told what the batcher does."""

    def batch_done(self, *, rows: int, tokens: int, padded_tokens: int, budget: int, seconds: float) -> None:
        """A forward pass was made.

        Args:
            rows: Rows in it.
            tokens: Their tokens.
            padded_tokens: The same with padding.
            budget: Tokens that it could have had.
            seconds: How long it took.
        """

    def queue_changed(self, *, requests: int, tokens: int, seconds: float) -> None:
        """So much waits or is being scored, which takes so long at the pace of late."""

    def rows_spared(self, *, equal: int, cached: int) -> None:
        """So many rows needed no computation: equal to others in the round, or known from before."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one forward pass.

    Attributes:
        scorer: The critic of all of them.
        rows: The rows.
    """

    scorer: RowScorer
    rows: Sequence[Row]


class Batcher:
    """Scores rows for many callers at once. Lives in one event loop; :meth:`close` ends it.

    Args:
        settings: How rows are put together.
        max_queued_tokens: Tokens that may wait or be under way.
        max_queued_requests: Requests that may wait or be under way.
        on_gpu: Where the critics compute.
        passes: Runs the forward passes; one at a time when left out.
        watcher: Is told what happens.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        settings: BatchSettings,
        *,
        max_queued_tokens: int,
        max_queued_requests: int,
        on_gpu: bool = False,
        passes: Passes | None = None,
        watcher: BatchWatcher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_gpu = on_gpu
        self._budget = settings.max_batch_tokens or (GPU_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS)
        self._max_tokens = max_queued_tokens
        self._max_requests = max_queued_requests
        self._watcher = watcher
        self._clock = clock
        self._cache = ScoreCache(settings.cache_tokens)
        self._arrivals = ArrivalPace(settings.max_wait_s)
        self._pace = ScoringPace(self._budget)
        self._queue: deque[Job] = deque()
        self._jobs: set[Job] = set()
        self._news = asyncio.Event()
        self._closed = False
        self._passes = passes or Passes()
        self._planned: deque[_Batch] = deque()
        self._last_done = -math.inf
        self._workers: list[asyncio.Task[None]] = []

    @property
    def num_tokens(self) -> int:
        """Their tokens that are not scored yet."""
        return sum(job.tokens_left for job in self._jobs)

    def take_load(self) -> tuple[float, float]:
        """Seconds of work that wait at the pace of late, and the share of the time since the last call that was work."""
        return self._pace.seconds_for(self.num_tokens), self._pace.take_busy(self._clock())

    def _expected_s(self, tokens: int) -> tuple[float, float]:
        """Time that a request of so many tokens waits for others, and then takes itself, at the pace of late.

        As callers take turns, none goes before it with much more than it has itself.
        """
        before = tokens + self._turn_tokens
        others = sum(min(job.tokens_left, before) for job in self._jobs)
        return self._pace.seconds_for(others), self._pace.seconds_for(tokens)

    @property
    def _turn_tokens(self) -> int:
        return max(1, ROUND_BATCHES * self._budget // _TURNS_PER_ROUND)

    def check_open(self) -> None:
        """Refuse what comes after the end.

        Raises:
            ApiError: 503 after :meth:`close`.
        """
        if self._closed:
            raise unavailable("the service is shutting down", "draining")

    def check_room(self, *, tokens: int = 0, others: int = 0, timeout_s: float | None = None) -> None:
        """Refuse at once what would wait in vain.

        Args:
            tokens: Tokens of the request, as far as they are known.
            others: Requests that are about to enter the queue.
            timeout_s: Time that it has.

        Raises:
            ApiError: 429 with Retry-After, if the queue is full, or the time would not suffice; 503 after the end.
        """
        self.check_open()
        waiting, (others_s, own_s) = self.num_tokens, self._expected_s(tokens)
        full = len(self._jobs) + others >= self._max_requests or (
            bool(self._jobs) and waiting + tokens > self._max_tokens
        )
        late = timeout_s is not None and _SLOWER * others_s + own_s > _SAFE * timeout_s
        if full or (bool(self._jobs) and late):
            raise queue_full(
                f"{len(self._jobs)} requests with {waiting} tokens are waiting already",
                retry_after_s=max(_MIN_RETRY_S, (others_s + own_s) / 2),
            )

    def _check_hope(self, tokens: int, timeout_s: float) -> None:
        """Refuse at once what is too much even for an idle critic, so that it comes again in parts.

        Raises:
            ApiError: 413, if it would take far longer than it may, at the pace of the last minute: an older one may
                have been another load's, and is tried anew.
        """
        seconds = self._pace.seconds_for(tokens, now=self._clock())
        if seconds > _HOPELESS * timeout_s:
            raise ApiError(
                f"{tokens} tokens would take about {seconds:.0f} s, and a request has {timeout_s:.0f} s: send about "
                f"{max(1, int(tokens * timeout_s / seconds))} tokens at once",
                status=413,
                code=DEADLINE_UNREACHABLE,
            )

    async def submit(
        self, scorer: RowScorer, pairs: Sequence[PreparedPair], *, timeout_s: float
    ) -> list[RowScore]:
        """Score pairs, together with whatever else there is to score.

        Args:
            scorer: The critic that scores all of them.
            pairs: The pairs, tokenised by that critic.
            timeout_s: Time until the answer. A caller that is cancelled, or out of time, leaves the queue.

        Returns:
            The scores in the order of the pairs; equal pairs get the same.

        Raises:
            ApiError: 429 if there is no room, 413 if it is too much for the time, 408 if the time is over, 500 if the
                critic fails.
        """
        # Here already, so that equal pairs of one request are equal to the last bit however many rounds it takes.
        keys, index = deduplicate([pair.key for pair in pairs])
        by_key = {pair.key: pair for pair in pairs}
        distinct = [by_key[key] for key in keys]
        self._arrivals.arrived(self._clock())
        known = [self._cache.get(scorer.fingerprint, pair) for pair in distinct]
        missing = sum(score is None for score in known)
        tokens = sum(len(pair) for pair, score in zip(distinct, known, strict=True) if score is None)
        self._tell_spared(equal=len(pairs) - len(distinct), cached=len(known) - missing)
        if missing:
            if missing > 1:
                self._check_hope(tokens, timeout_s)
            self.check_room(tokens=tokens, timeout_s=timeout_s)
            job = Job(scorer, distinct, asyncio.get_running_loop().create_future(), known, missing, tokens)
            scores = await self._wait_for(job, timeout_s)
        else:
            scores = [score for score in known if score is not None]
        return [scores[int(i)] for i in index]

    async def _wait_for(self, job: Job, timeout_s: float) -> list[RowScore]:
        self._enter(job)
        try:
            return await asyncio.wait_for(job.future, timeout_s)
        except TimeoutError:
            raise deadline_exceeded(f"no score within {timeout_s:g} s; send fewer pairs at once") from None
        finally:
            self._leave(job)

    async def close(self) -> None:
        """Answer what is under way and end; nothing new is taken."""
        self._closed = True
        self._news.set()
        await asyncio.gather(*self._workers)
        self._passes.close()

    def _enter(self, job: Job) -> None:
        self._jobs.add(job)
        self._queue.append(job)
        self._tell_queue()
        if not self._workers:
            loop = asyncio.get_running_loop()
            self._workers = [loop.create_task(self._work()) for _ in range(self._passes.at_once)]
        self._news.set()

    def _leave(self, job: Job) -> None:
        self._jobs.discard(job)
        self._tell_queue()

    async def _work(self) -> None:
        """Consumes the queue until it is closed and empty; waits for news when there is nothing to score."""
        while True:
            batch = self._next_batch()
            if batch is not None:
                await self._score_batch(batch)
                continue
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()
            await self._wait_for_company()

    async def _wait_for_company(self) -> None:
        """The critic was idle: give others the chance to share its first batch, if some are to be expected."""
        budget = self._budget
        seconds = self._arrivals.wait_s(queued_tokens=self.num_tokens, budget=budget)
        until = self._clock() + seconds
        while not self._closed and self.num_tokens < budget and (left := until - self._clock()) > 0:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                return

    def _next_batch(self) -> _Batch | None:
        """The next batch that somebody waits for; None if there is nothing to score."""
        while self._planned or self._queue:
            if not self._planned:
                scorer, rows = self._take_round()
                plans = plan_round(
                    rows,
                    budget=self._budget,
                    on_gpu=self._on_gpu,
                    end_to_end=scorer.end_to_end,
                    at_once=self._passes.at_once,
                )
                self._planned.extend(_Batch(scorer, plan) for plan in plans)
                continue
            batch = self._planned.popleft()
            wanted = [row for row in batch.rows if row.wanted]
            if wanted:
                return _Batch(batch.scorer, wanted)
        return None

    def _take_round(self) -> tuple[RowScorer, list[Row]]:
        """Rows of the critic whose turn it is, the oldest first, equal ones together; callers take turns."""
        scorer = self._queue[0].scorer
        budget = ROUND_BATCHES * self._budget
        waiting = deque(job for job in self._queue if job.scorer is scorer and not job.future.done())
        served: set[Job] = set()
        rows: dict[bytes, Row] = {}
        tokens = equal = 0
        while waiting and tokens < budget:
            job = waiting.popleft()
            served.add(job)
            turn = tokens + self._turn_tokens
            while job.next < len(job.pairs) and tokens < min(turn, budget):
                place, job.next = job.next, job.next + 1
                if job.found[place] is not None:
                    continue
                pair = job.pairs[place]
                if pair.key in rows:
                    equal += 1
                else:
                    rows[pair.key] = Row(pair)
                    tokens += len(pair)
                rows[pair.key].owners.append((job, place))
            if job.next < len(job.pairs):
                waiting.append(job)
        left = [job for job in self._queue if not job.future.done() and job.next < len(job.pairs)]
        # Who has had a turn goes behind those who have not.
        self._queue = deque(sorted(left, key=lambda job: job in served))
        self._tell_spared(equal=equal)
        return scorer, list(rows.values())

    async def _score_batch(self, batch: _Batch) -> None:
        started = self._clock()
        alone = not self._planned and not self._queue
        try:
            scores = await self._passes.run(batch.scorer, [row.pair.row for row in batch.rows], alone=alone)
        except Exception as error:
            _logger.exception("the critic failed on a batch of %d rows", len(batch.rows))
            failure = failed_scoring(f"the critic failed on this batch: {type(error).__name__}")
            for row in batch.rows:
                fail(row, failure)
            return
        now = self._clock()
        seconds = now - started
        tokens = sum(len(row.pair) for row in batch.rows)
        # What ended beside it has had its share of the time.
        self._pace.scored(tokens, now - max(started, self._last_done), now=now)
        self._last_done = now
        if self._watcher is not None:
            padded = len(batch.rows) * max(len(row.pair) for row in batch.rows)
            self._watcher.batch_done(
                rows=len(batch.rows),
                tokens=tokens,
                padded_tokens=tokens if batch.scorer.end_to_end else padded,
                budget=self._budget,
                seconds=seconds,
            )
        for row, score in zip(batch.rows, scores, strict=True):
            if math.isfinite(score.score):
                self._cache.put(batch.scorer.fingerprint, row.pair, score)
            deliver(row, score)

    def _tell_queue(self) -> None:
        if self._watcher is not None:
            tokens = self.num_tokens
            seconds = self._pace.seconds_for(tokens)
            self._watcher.queue_changed(requests=len(self._jobs), tokens=tokens, seconds=seconds)

    def _tell_spared(self, *, equal: int = 0, cached: int = 0) -> None:
        if self._watcher is not None and (equal or cached):
            self._watcher.rows_spared(equal=equal, cached=cached)
