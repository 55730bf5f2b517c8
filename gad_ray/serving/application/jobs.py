"""Who waits for which rows: a request's rows until they are scored, and a round's rows with everyone who wants them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from gad_ray.serving.application.errors import INTERNAL, ApiError
from gad_ray.serving.application.loaded_critic import PreparedPair, RowScore, RowScorer


@dataclass(eq=False)
class Job:
    """A request that waits for its scores.

    Attributes:
        scorer: The critic that scores all of them.
        pairs: Its distinct rows.
        future: Gets their scores.
        found: Those that are there.
        missing: How many are not.
        tokens_left: Tokens of the missing ones.
        next: The first row that is not in a round yet.
    """

    scorer: RowScorer
    pairs: Sequence[PreparedPair]
    future: asyncio.Future[list[RowScore]]
    found: list[RowScore | None]
    missing: int
    tokens_left: int
    next: int = 0


@dataclass(eq=False)
class Row:
    """Distinct tokens in a round, with everyone who asked for them."""

    pair: PreparedPair
    owners: list[tuple[Job, int]] = field(default_factory=list["tuple[Job, int]"])

    @property
    def wanted(self) -> bool:
        """Whether anyone still waits for it."""
        return any(not job.future.done() for job, _ in self.owners)


def deliver(row: Row, score: RowScore) -> None:
    """Give a score to everyone who asked for it; one that is no number fails them."""
    if not math.isfinite(score.score):
        fail(row, failed_scoring(f"the critic gave {score.score} in place of a score"))
        return
    for job, place in row.owners:
        if job.found[place] is None:
            job.found[place] = score
            job.missing -= 1
            job.tokens_left -= len(row.pair)
        if job.missing == 0 and not job.future.done():
            job.future.set_result([found for found in job.found if found is not None])


def failed_scoring(message: str) -> ApiError:
    """500: the critic has failed."""
    return ApiError(message, status=500, code="scoring_failed", kind=INTERNAL)


def fail(row: Row, failure: ApiError) -> None:
    """End the requests of everyone who asked for a row."""
    for job, _ in row.owners:
        if not job.future.done():
            job.future.set_exception(failure)
