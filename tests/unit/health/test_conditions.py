from __future__ import annotations

import pytest

from gad_ray.health.conditions import (
    Above,
    AllOf,
    AnyOf,
    Below,
    Condition,
    GapAbove,
    Near,
    RatioAbove,
    StaysAbove,
    VariationAbove,
    holds,
    signals_of,
)
from gad_ray.health.signals import Signal

ACC, DIFF, LOSS = Signal.D_ACC, Signal.SCORE_DIFF, Signal.RANKING_LOSS


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Above(ACC, 0.49), True),
        (Above(ACC, 0.5), False),
        (Below(ACC, 0.51), True),
        (Below(ACC, 0.5), False),
        (StaysAbove(ACC, 0.24), True),
        (StaysAbove(ACC, 0.25), False),
        (Near(ACC, 0.375, 0.25), True),
        (Near(ACC, 0.375, 0.125), False),
        (GapAbove(DIFF, ACC, 1.4), True),
        (GapAbove(DIFF, ACC, 1.5), False),
        (RatioAbove(DIFF, ACC, 3.9), True),
        (RatioAbove(DIFF, ACC, 4.0), False),
        (VariationAbove(DIFF, 0.4), True),  # standard deviation 1 around a mean of 2
        (VariationAbove(DIFF, 0.6), False),
        (AllOf((Above(ACC, 0.4), Above(DIFF, 1.0))), True),
        (AllOf((Above(ACC, 0.4), Above(DIFF, 3.0))), False),
        (AnyOf((Above(ACC, 0.9), Above(DIFF, 1.0))), True),
        (AnyOf((Above(ACC, 0.9), Above(DIFF, 3.0))), False),
    ],
)
def test_a_condition_compares_means_over_the_window(condition: Condition, expected: bool) -> None:
    windows = {ACC: [0.25, 0.75], DIFF: [1.0, 3.0]}
    assert holds(condition, windows) is expected


@pytest.mark.parametrize(
    "condition", [Above(LOSS, -9.0), Below(LOSS, 9.0), GapAbove(ACC, LOSS, -9.0), RatioAbove(ACC, LOSS, -9.0)]
)
def test_what_is_not_known_does_not_hold(condition: Condition) -> None:
    windows = {ACC: [0.5]}
    assert not holds(condition, windows)
    assert not holds(AllOf((Above(ACC, 0.0), condition)), windows)
    assert holds(AnyOf((condition, Above(ACC, 0.0))), windows)


def test_a_condition_names_all_signals_that_it_looks_at() -> None:
    condition = AnyOf((AllOf((Above(ACC, 0.9), GapAbove(DIFF, LOSS, 1.0))), Below(ACC, 0.1)))
    assert list(signals_of(condition)) == [ACC, DIFF, LOSS, ACC]
