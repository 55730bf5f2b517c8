"""A run whose health rules change a setting themselves, broken off and continued."""

from __future__ import annotations

import json

import pytest

from tests.game import Game, Outcome

pytestmark = pytest.mark.timeout(600)

# Responses of one token: length-collapse holds from step 5 on, and asks for more KL.
SILENCE = (
    "rollout.max_response_tokens=1",
    "evaluation.every=0",
    "data.heldout_prompts=0",
    "stages.warmup.steps=0",
    "policy.kl.coefficient=0.001",
    "health.adaptive={updates_per_step: null, temperature: null}",
)
FIRST_CHANGE = 5


def events(outcome: Outcome) -> list[dict[str, object]]:
    lines = (outcome.root / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if str(event["event"]).startswith("answer")]


@pytest.fixture(scope="module")
def answered(game: Game) -> Outcome:
    return game.play("answered", *SILENCE, "stages.adversarial.steps=7")


def test_the_learner_follows_what_a_rule_asks_for(answered: Outcome) -> None:
    assert answered.code == 0, answered.err
    coefficients = {row["step"]: row["actor/kl_coef"] for row in answered.metrics}
    assert coefficients == {**dict.fromkeys(range(1, 6), 0.001), 6: 0.01, 7: 0.01}
    in_force = {row["step"]: row["health/answers"] for row in answered.metrics}
    assert in_force == {**dict.fromkeys(range(1, 6), 0.0), 6: 1.0, 7: 1.0}


def test_it_is_told_as_an_event_and_on_the_terminal(answered: Outcome) -> None:
    (event,) = events(answered)
    del event["time"]
    assert event == {
        "event": "answer_applied",
        "step": FIRST_CHANGE,
        "rules": ["length-collapse"],
        "key": "policy.kl.coefficient",
        "before": 0.001,
        "after": 0.01,
    }
    assert "policy.kl.coefficient 0.001 → 0.01" in answered.out + answered.err


def test_a_resumed_run_goes_on_with_it(game: Game, answered: Outcome) -> None:
    resumed = game.play("answered", *SILENCE, "stages.adversarial.steps=9", resume="auto")
    assert resumed.code == 0, resumed.err
    assert [row["actor/kl_coef"] for row in resumed.metrics[-4:]] == [0.01] * 4
    assert [row["health/answers"] for row in resumed.metrics[-4:]] == [1.0] * 4
    assert len(events(resumed)) == 1
