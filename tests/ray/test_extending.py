"""Everything of one's own that docs/extending shows, in real runs from outside the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gad_ray.critics.store import open_critic
from gad_ray.models.pairs import Pair
from tests.game import REPOSITORY, Game, Outcome
from tests.unit.builders import user

OF_ONES_OWN = (
    "policy.advantage={name: 'examples.extending.median_advantage:MedianAdvantage'}",
    "policy.loss={name: 'examples.extending.positive_loss:PositiveLoss'}",
    "policy.backend={name: 'examples.extending.sgd_backend:SgdBackendSettings', momentum: 0.5}",
    "critic.loss={name: 'examples.extending.hinge_loss:HingeLoss', margin: 0.5, temperature: {value: 1.0}}",
    "critic.pooling={name: 'examples.extending.worst_pooling:WorstPooling', count: 3}",
    "critic.backend={name: 'examples.extending.sgd_backend:SgdBackendSettings'}",
    "rollout.engine=examples.extending.generate_engine:open_engine",
)
FROZEN = "critic.frozen={name: 'examples.extending.length_critic:LengthCriticSettings', words: 6}"
SHORT = ("stages.warmup.steps=2", "stages.adversarial.steps=2", "checkpoint.every=2")
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def own(game: Game) -> Outcome:
    return game.play("own", *OF_ONES_OWN, *SHORT, environment=ENVIRONMENT)


@pytest.fixture(scope="module")
def frozen(game: Game) -> Outcome:
    """A game in which the critic is a rule, from its first step on."""
    return game.play(
        "frozen", FROZEN, "stages.warmup.steps=0", "stages.adversarial.steps=3", "checkpoint.every=2",
        environment=ENVIRONMENT,
    )  # fmt: skip


def test_a_run_with_six_parts_from_outside_the_package_trains_both_models(own: Outcome) -> None:
    assert own.code == 0, own.err
    steps = own.metrics
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert all(row["sync/probe_gap"] < 1e-4 for row in steps if "sync/probe_gap" in row)
    assert steps[-1]["critic/grad_norm"] > 0
    assert steps[-1]["actor/grad_norm"] > 0
    # The hinge sees d/τ, with τ = 1: not what the ranking loss would tell of the same scores.
    assert steps[0]["critic/temperature"] == 1.0


def test_a_critic_with_a_pooling_from_outside_scores_by_itself_as_its_run_did(own: Outcome) -> None:
    critic = open_critic(own.root / "exports" / "critic")
    assert json.loads((own.root / "exports" / "critic" / "critic.json").read_text())["pooling"]["count"] == 3
    checkpoint = open_critic(max((own.root / "checkpoints").glob("step-*")))
    pairs = [Pair(user("Say number 3."), text) for text in ("The number is 3.", "Three", "")]
    np.testing.assert_array_equal(critic.score(pairs), checkpoint.score(pairs))
    assert critic.fingerprint() == checkpoint.fingerprint()


def test_a_game_is_played_on_the_scores_of_a_critic_that_does_not_learn(frozen: Outcome) -> None:
    assert frozen.code == 0, frozen.err
    for row in frozen.metrics:
        assert row["critic/teacher_score_max"] <= 0.0
        assert "critic/grad_norm" not in row
        assert row["actor/grad_norm"] >= 0.0
        assert row["critic/rewards/mean"] == pytest.approx(row["critic/student_score_mean"], abs=1e-6)
    critic = open_critic(frozen.root / "exports" / "critic")
    pairs = [Pair(user("Say number 3."), "one two three"), Pair(user("Say number 3."), "1 2 3 4 5 6")]
    assert critic.score(pairs).tolist() == [-0.5, 0.0]


def test_a_run_goes_on_with_the_critic_it_began_with_and_refuses_another(game: Game, frozen: Outcome) -> None:
    assert frozen.code == 0, frozen.err
    longer = ("stages.warmup.steps=0", "checkpoint.every=2")
    again = game.play(
        "frozen", FROZEN, *longer, "stages.adversarial.steps=4", resume="auto", environment=ENVIRONMENT
    )
    assert again.code == 0, again.err
    assert [row["step"] for row in again.metrics] == [1, 2, 3, 4]
    other = FROZEN.replace("words: 6", "words: 7")
    refused = game.play(
        "frozen", other, *longer, "stages.adversarial.steps=5", resume="auto", environment=ENVIRONMENT
    )
    assert refused.code != 0
    assert "other settings" in refused.err
    assert not Path(frozen.root / "exports" / "critic" / "model.safetensors").exists()
