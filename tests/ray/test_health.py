"""A run that a critical health rule answers and stops: diagnosed, and continued."""

from __future__ import annotations

import json

import pytest

from gad_ray.checkpoint.store import CheckpointStore
from gad_ray.health import diagnose
from gad_ray.health.reading import read_history
from tests.game import Game, Outcome

SILENCE = (
    "rollout.max_response_tokens=1",
    "evaluation.every=0",
    "data.heldout_prompts=0",
    "stages.warmup.steps=0",
    "stages.adversarial.steps=6",
    "policy.kl.coefficient=0.001",
    # The rule's answer, as far as it may give one itself, is ten times as much KL.
    "health.adaptive={updates_per_step: null, temperature: null}",
)
STEP = 5
"""With which the rule's window is full for the first time."""


@pytest.fixture(scope="module")
def stopped(game: Game) -> Outcome:
    """Responses of one token from the first step on."""
    return game.play("silent", *SILENCE, "health.on_critical=stop")


def test_a_critical_rule_ends_the_run_in_good_order(stopped: Outcome) -> None:
    assert stopped.code == 3, stopped.err
    assert "step 5: length-collapse: response length 1" in stopped.err
    assert "policy.optimizer.lr=" in stopped.err
    assert stopped.metrics[-1]["step"] == STEP
    assert stopped.metrics[-1]["health/critical_rules"] == 1.0
    latest = CheckpointStore(stopped.root / "checkpoints", keep=2).latest()
    assert latest is not None
    assert latest.name.endswith("5")
    events = [json.loads(line) for line in (stopped.root / "events.jsonl").read_text().splitlines()]
    assert [e["rule"] for e in events if e["event"] == "health"].count("length-collapse") == 1
    assert events[-1]["event"] == "stopped"


def test_the_rule_changed_what_it_may_and_said_so(stopped: Outcome) -> None:
    lines = (stopped.root / "events.jsonl").read_text().splitlines()
    (event,) = (e for e in map(json.loads, lines) if e["event"].startswith("answer"))
    del event["time"]
    assert event == {
        "event": "answer_applied",
        "step": STEP,
        "rules": ["length-collapse"],
        "key": "policy.kl.coefficient",
        "before": 0.001,
        "after": 0.01,
    }
    assert "policy.kl.coefficient 0.001 → 0.01" in stopped.out + stopped.err
    assert {(row["actor/kl_coef"], row["health/answers"]) for row in stopped.metrics} == {(0.001, 0.0)}


def test_its_diagnosis_names_the_rule_and_that_it_was_stopped(stopped: Outcome) -> None:
    diagnosis = diagnose(read_history(str(stopped.root)))
    collapse = next(item for item in diagnosis.fired if item.finding.rule == "length-collapse")
    assert collapse.steps == (STEP,)
    assert collapse.lasting
    assert any("stopped at step 5" in note for note in diagnosis.notes)


def test_it_goes_on_all_the_same_if_it_is_told_to(game: Game, stopped: Outcome) -> None:
    resumed = game.play("silent", *SILENCE, "health.on_critical=stop", resume="auto")
    assert resumed.code == 0, resumed.err
    assert [row["step"] for row in resumed.metrics] == list(range(1, 7))
    # It holds still, and was reported when it began to; its answer is in force.
    assert resumed.metrics[-1]["health/critical_rules"] == 1.0
    assert resumed.metrics[-1]["actor/kl_coef"] == 0.01
    assert resumed.metrics[-1]["health/answers"] == 1.0
    assert "length-collapse" not in resumed.out
