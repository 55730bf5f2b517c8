"""The course that a healthy run takes: whether the critic is ready for the game, and how a run stands beside the field's.

The field's notes look at a run at steps 49, 150 and 500, the first two in a warm-up of 253. A shorter warm-up has its
milestones at the same shares of its length, and a shorter game is looked at where it ends.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gad_ray.health import bands
from gad_ray.health.conditions import Above, AllOf, Below, Condition, Not, within
from gad_ray.health.facts import NO_FACTS, RunFacts
from gad_ray.health.history import Row
from gad_ray.health.signals import Signal, read_signals

READY: Condition = AllOf(
    (
        Above(Signal.D_ACC, bands.D_ACC[0]),
        Below(Signal.D_ACC, bands.D_ACC_LIMIT),
        *within(Signal.SCORE_DIFF, bands.SCORE_DIFF),
        *within(Signal.CRITIC_GRAD_NORM, bands.GRAD_NORM),
        Not(Above(Signal.SIGMOID_MEAN, bands.SATURATED)),
    )
)
"""The critic ranks, its scores are apart and not saturated, and it still learns: its score can be a reward."""

READY_OVER = 5
"""Steps over which that is judged."""

_FIELD_WARMUP, _FIELD_MILESTONES, _FIELD_GAME = 253, (49, 150), 500
_OVER = 5


class Standing(StrEnum):
    """How a run stands at a milestone, beside what is expected there."""

    AS_EXPECTED = "as-expected"
    BEHIND = "behind"
    AHEAD = "ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """One look at a run.

    Attributes:
        field_step: The field's step that it stands for.
        step: The run's own.
        expected: Key of the phrase that says what is expected.
        found: Signal → mean over the last steps up to this one.
        standing: How that compares.
    """

    field_step: int
    step: int
    expected: str
    found: Mapping[Signal, float]
    standing: Standing


def course_of(
    rows: Sequence[Row], facts: RunFacts = NO_FACTS, *, warmup_steps: int | None = None
) -> list[Milestone]:
    """The milestones that a run has reached; none of a log that does not tell its stages or scores.

    Args:
        rows: The steps in order.
        facts: What else is known of the run.
        warmup_steps: Length of its warm-up; what there is of it when None.
    """
    warmup = [row for row in rows if row.stage == "warmup"]
    game = [row for row in rows if row.stage == "adversarial"]
    found: list[Milestone] = []
    length = min(warmup_steps or len(warmup), _FIELD_WARMUP)
    for field_step, expected in zip(_FIELD_MILESTONES, ("course-ranks", "course-band"), strict=True):
        place = max(1, round(length * field_step / _FIELD_WARMUP))
        means = _means(warmup[:place], facts)
        if len(warmup) >= place and {Signal.D_ACC, Signal.SCORE_DIFF} <= means.keys():
            d_acc, difference = means[Signal.D_ACC], means[Signal.SCORE_DIFF]
            lowest = (0.60, 0.5) if expected == "course-ranks" else (bands.D_ACC[0], bands.SCORE_DIFF[0])
            standing = _standing(
                behind=d_acc < lowest[0] or difference < lowest[1],
                ahead=d_acc > bands.D_ACC_LIMIT or difference > bands.SCORE_DIFF[1],
            )
            step = warmup[place - 1].step
            found.append(
                Milestone(field_step=field_step, step=step, expected=expected, found=means, standing=standing)
            )
    place = min(len(game), _FIELD_GAME - _FIELD_WARMUP)
    first, last = _means(game[:_OVER], facts), _means(game[:place], facts)
    if place > _OVER and Signal.SCORE_DIFF in first and Signal.SCORE_DIFF in last:
        begun, difference = first[Signal.SCORE_DIFF], last[Signal.SCORE_DIFF]
        standing = _standing(behind=difference > max(1.0, 0.8 * begun), ahead=difference < 0.5)
        found.append(
            Milestone(
                field_step=_FIELD_GAME,
                step=game[place - 1].step,
                expected="course-closer",
                found=last,
                standing=standing,
            )
        )
    return found


def _standing(*, behind: bool, ahead: bool) -> Standing:
    return Standing.BEHIND if behind else Standing.AHEAD if ahead else Standing.AS_EXPECTED


def _means(rows: Sequence[Row], facts: RunFacts) -> dict[Signal, float]:
    told = [read_signals(row.metrics, facts) for row in rows[-_OVER:]]
    values = {s: [row[s] for row in told if s in row] for s in (Signal.D_ACC, Signal.SCORE_DIFF)}
    return {signal: statistics.fmean(numbers) for signal, numbers in values.items() if numbers}
