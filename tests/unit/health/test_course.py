"""Whether a critic is ready for the game, and how a run stands beside the expected course."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from gad_ray.config import RunConfig
from gad_ray.health import HealthMonitor
from gad_ray.health.course import READY, READY_OVER, Standing, course_of
from gad_ray.health.history import Row

IN_BAND = {"critic/d_acc": 0.8, "critic/score_diff": 2.0, "critic/sigmoid_mean": 0.7, "critic/grad_norm": 1.0}
BLIND = IN_BAND | {"critic/d_acc": 0.5, "critic/score_diff": 0.1}


def monitor_after(config: RunConfig, *steps: Mapping[str, float]) -> HealthMonitor:
    monitor = HealthMonitor(config)
    for step, metrics in enumerate(steps, start=1):
        monitor.observe(step=step, stage="warmup", metrics=metrics)
    return monitor


def test_a_critic_is_ready_when_its_figures_have_met_the_band_for_five_steps(config: RunConfig) -> None:
    assert not monitor_after(config, *[IN_BAND] * 4).meets(READY, over=READY_OVER)
    assert monitor_after(config, *[IN_BAND] * 5).meets(READY, over=READY_OVER)
    assert not monitor_after(config, *[IN_BAND] * 5, *[BLIND] * 3).meets(READY, over=READY_OVER)


@pytest.mark.parametrize(
    "off",
    [
        {"critic/d_acc": 0.6},
        {"critic/d_acc": 0.97},
        {"critic/score_diff": 0.8},
        {"critic/score_diff": 5.5},
        {"critic/grad_norm": 0.2},
        {"critic/grad_norm": 6.0},
        {"critic/sigmoid_mean": 0.99},
        {"critic/d_acc": math.nan},
    ],
)
def test_a_figure_outside_its_band_keeps_a_critic_from_being_ready(
    config: RunConfig, off: dict[str, float]
) -> None:
    assert not monitor_after(config, *[IN_BAND | off] * 10).meets(READY, over=READY_OVER)


def rows(warmup: list[float], game: list[float]) -> list[Row]:
    """Steps with these score differences."""
    stages = ["warmup"] * len(warmup) + ["adversarial"] * len(game)
    return [
        Row(step=step, stage=stage, metrics={"critic/d_acc": 0.8, "critic/score_diff": difference})
        for step, (stage, difference) in enumerate(zip(stages, [*warmup, *game], strict=True), start=1)
    ]


def test_the_fields_own_lengths_are_looked_at_at_the_fields_steps() -> None:
    fall = [1.8 - 1.0 * i / 300 for i in range(300)]
    found = course_of(rows([1.8] * 253, fall))
    assert [(one.field_step, one.step) for one in found] == [(49, 49), (150, 150), (500, 500)]
    assert {one.standing for one in found} == {Standing.AS_EXPECTED}


def test_a_short_run_is_looked_at_at_the_same_shares_of_its_warm_up() -> None:
    found = course_of(rows([0.1, 0.2, 0.6, 0.9, 1.2, 1.4, 1.6, 1.8, 1.8, 1.8], [1.8] * 12))
    assert [(one.field_step, one.step, one.standing) for one in found] == [
        (49, 2, Standing.BEHIND),
        (150, 6, Standing.BEHIND),
        (500, 22, Standing.BEHIND),
    ]


def test_a_warm_up_under_way_has_only_the_milestones_that_it_has_reached() -> None:
    assert [one.field_step for one in course_of(rows([1.8] * 60, []), warmup_steps=253)] == [49]


def test_scores_that_are_soon_far_apart_or_soon_alike_are_ahead_of_their_time() -> None:
    found = course_of(rows([7.0] * 253, [1.8] * 5 + [0.3] * 300))
    assert {one.standing for one in found} == {Standing.AHEAD}


def test_a_log_without_stages_has_no_course() -> None:
    assert course_of([Row(step=1, stage="unknown", metrics={"critic/d_acc": 0.8, "critic/score_diff": 2.0})]) == []
