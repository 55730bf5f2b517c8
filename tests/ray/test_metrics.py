"""Every metric that is declared is logged by some run, and every chart of the report has something to draw."""

from __future__ import annotations

import pytest

from gad_ray.observability.metrics import METRICS
from gad_ray.report.catalogue import SECTIONS
from tests.game import OF_AN_ENDPOINT, REPOSITORY, Game, Outcome

EVERY_TERM = (
    "reward.format=["
    "{name: no_repetition}, {name: pattern, regex: '[bcdf]'}, {name: json}, {name: leaked_control}, "
    "{name: length_window, max_tokens: 8, soft_tokens: 2}, {name: language}, "
    "{name: custom, function: 'tests.ray.polite:polite'}]"
)
FULL = (
    EVERY_TERM,
    "critic.replay={size: 30, ratio: 0.5}",
    "critic.loss={batch_norm: true}",
    "critic.pooling={name: mix}",
    "critic.truncated=exclude",
    "data.curriculum={name: gap, order: descending, keep: 0.7}",
    "health.adaptive={}",
    "policy.advantage={zero_spread: drop, refill: {max_rounds: 1}}",
    "policy.importance={name: rejection, cap: 1.0}",
    "policy.kl={coefficient: 0.1, estimator: k1, place: reward}",
    "stages.warmup={steps: 2, policy: cross_entropy}",
    "stages.adversarial.steps=3",
    "evaluation.every=2",
)
"""Overrides of a game that has most of what there is."""

OF_PROMETHEUS = {"train/step"}
"""A step is a column of its own in files."""


@pytest.fixture(scope="module")
def full(game: Game) -> Outcome:
    return game.play("full", *FULL, environment={"PYTHONPATH": str(REPOSITORY)})


@pytest.fixture(scope="module")
def logged(full: Outcome, whole_run: Outcome, soda: Outcome) -> set[str]:
    assert full.code == 0, full.err
    return {name for run in (full, whole_run, soda) for row in run.metrics for name in row}


def test_every_metric_is_logged_by_some_run(logged: set[str]) -> None:
    assert set(METRICS) - logged - OF_AN_ENDPOINT - OF_PROMETHEUS == set()


def test_every_curve_of_every_chart_has_something_to_draw(logged: set[str]) -> None:
    drawn = {
        name
        for section in SECTIONS
        for chart in section.charts
        for name in (*chart.metrics, *(end for span in chart.spans for end in span))
    }
    assert drawn - logged - OF_AN_ENDPOINT == set()
