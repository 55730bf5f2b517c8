"""A warm-up that ends when the critic is ready, in real runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.game import Game, Outcome, steady

LEARNS = (
    "stages.warmup.steps=25",
    "stages.adversarial.steps=2",
    "stages.warmup.until_ready={min_steps: 3}",
    "evaluation.every=0",
    "checkpoint.every=1",
    "critic.head_lr=0.02",
    "critic.optimizer.lr=0.001",
    "critic.loss.temperature.value=2.0",
)
BLIND = (
    "stages.warmup.steps=2",
    "stages.adversarial.steps=1",
    "evaluation.every=0",
    "critic.optimizer.lr=1e-9",
)


def events(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    lines = (outcome.root / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.fixture(scope="module")
def ready(game: Game) -> Outcome:
    return game.play("ready", *LEARNS, program="tests.ray.ready_early")


def test_the_game_begins_as_soon_as_the_critic_is_ready(ready: Outcome) -> None:
    assert ready.code == 0, ready.err
    (event,) = events(ready, "ready")
    last = event["step"]
    assert 6 <= last < 25, "the figures of five steps have to be there, and the critic learns fast"
    stages = [row["stage"] for row in ready.metrics]
    assert stages == ["warmup"] * last + ["adversarial"] * 2
    assert f"the critic is ready: the warm-up ends with step {last}" in ready.out + ready.err
    evaluated = [row["step"] for row in ready.metrics if "eval/d_acc" in row]
    assert evaluated == [last, last + 2], "the stage's border is evaluated where it came to be"
    assert (ready.root / "exports" / "critic-warmup").is_dir()


def test_a_resumed_run_keeps_where_its_warm_up_ended(game: Game, ready: Outcome) -> None:
    (event,) = events(ready, "ready")
    run = game.start("ready-broken", *LEARNS, program="tests.ray.ready_early")
    run.wait_for_step(event["step"])
    run.kill()
    resumed = game.play("ready-broken", *LEARNS, program="tests.ray.ready_early", resume="auto")
    assert resumed.code == 0, resumed.err
    assert steady(resumed.metrics) == steady(ready.metrics)


def test_a_critic_that_is_not_ready_in_time_stops_the_run_where_that_is_asked_for(game: Game) -> None:
    outcome = game.play("not-ready", *BLIND, "stages.warmup.until_ready={min_steps: 1, otherwise: stop}")
    assert outcome.code == 3, outcome.err
    assert "not ready for the game after 2 steps" in outcome.err
    assert "stages.warmup.steps" in outcome.err
    assert [row["stage"] for row in outcome.metrics] == ["warmup"] * 2


def test_or_begins_the_game_with_a_warning(refilled: Outcome) -> None:
    """Its warm-up of four steps is shorter than the five that a critic is judged by."""
    (event,) = events(refilled, "not_ready")
    assert event["step"] == 4
    assert "not ready for the game after 4 steps" in refilled.out + refilled.err
    assert [row["stage"] for row in refilled.metrics][3:5] == ["warmup", "adversarial"]
