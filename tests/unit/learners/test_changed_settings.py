"""Settings that a learner takes over while it runs are those of a learner that was made with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gad_ray.batch import PromptBatch, RolloutBatch
from gad_ray.config.models import OptimizerConfig
from gad_ray.config.policy import AdaptiveKl, KlConfig
from gad_ray.core.discriminator import AdaptiveTemperature, BradleyTerryLoss, FixedTemperature
from gad_ray.learners.critic import CriticLearner
from tests.unit.builders import (
    GamePolicy,
    assert_gradients_close,
    critic_config,
    critic_learner,
    gradients_of,
    score_batch,
)
from tests.unit.learners.variants import NINE_SCORES, game_policy


def critic_of(directory: Path, *, tau: float = 2.0, **changed: Any) -> CriticLearner:
    fields: dict[str, Any] = {"loss": BradleyTerryLoss(temperature=FixedTemperature(value=tau)), **changed}
    return critic_learner(critic_config(directory, **fields))


def test_a_changed_temperature_is_trained_logged_exported_and_saved_with(
    tied_model: Path, prompts: PromptBatch, rollouts: RolloutBatch, tmp_path: Path
) -> None:
    ours, theirs = critic_of(tied_model, tau=2.0), critic_of(tied_model, tau=5.0)
    ours.take_settings(theirs.config)
    assert_gradients_close(
        gradients_of(ours, lambda: ours.score_and_update(prompts, rollouts)),
        gradients_of(theirs, lambda: theirs.score_and_update(prompts, rollouts)),
    )
    assert ours.score_and_update(prompts, rollouts)[1].metrics["critic/temperature"] == 5.0
    assert ours.state()[1]["temperature"] == 5.0
    ours.export(tmp_path / "export")
    assert json.loads((tmp_path / "export" / "critic.json").read_text())["temperature"] == 5.0


def test_changed_updates_per_step_are_taken(
    tied_model: Path, prompts: PromptBatch, rollouts: RolloutBatch
) -> None:
    learner = critic_of(tied_model)
    learner.take_settings(critic_of(tied_model, updates_per_step=3).config)
    assert learner.score_and_update(prompts, rollouts)[1].num_steps == 3
    assert learner.version == 3


def test_what_a_critic_was_built_with_stays(tied_model: Path) -> None:
    learner = critic_of(tied_model)
    other = critic_of(tied_model, tau=5.0, optimizer=OptimizerConfig(lr=0.5), micro_batch_tokens=9)
    learner.take_settings(other.config)
    assert learner.config.optimizer == critic_of(tied_model).config.optimizer
    assert learner.config.micro_batch_tokens == critic_of(tied_model).config.micro_batch_tokens


def test_a_temperature_that_adapts_itself_is_not_set_back(
    tied_model: Path, prompts: PromptBatch, rollouts: RolloutBatch
) -> None:
    loss = BradleyTerryLoss(temperature=AdaptiveTemperature(preset="smooth"))
    learner = critic_of(tied_model, loss=loss)
    learner.score_and_update(prompts, rollouts)
    found = learner.state()[1]["temperature"]
    learner.take_settings(learner.config.model_copy(update={"updates_per_step": 2}))
    assert learner.state()[1]["temperature"] == found


def policy_of(directory: Path, kl: KlConfig) -> GamePolicy:
    return game_policy(directory, kl=kl)


@pytest.mark.parametrize("place", ["loss", "reward"])
def test_a_changed_kl_coefficient_weighs_from_the_next_step_on(
    tied_model: Path, rollouts: RolloutBatch, place: Any
) -> None:
    ours = policy_of(tied_model, KlConfig(coefficient=0.01, place=place))
    theirs = policy_of(tied_model, KlConfig(coefficient=0.5, place=place))
    scores = score_batch(NINE_SCORES)
    # From the second step on there is a KL to weigh; the first is the same with any coefficient.
    ours.play(rollouts, scores)
    tensors, plain = ours.state()
    theirs.load_state(tensors, plain)
    theirs.take_settings(theirs.config)
    ours.take_settings(theirs.config)
    assert_gradients_close(
        gradients_of(ours, lambda: ours.play(rollouts, scores)),
        gradients_of(theirs, lambda: theirs.play(rollouts, scores)),
    )
    assert ours.play(rollouts, scores).metrics["actor/kl_coef"] == 0.5


def test_a_kl_coefficient_that_adapts_itself_is_not_set_back(
    tied_model: Path, rollouts: RolloutBatch
) -> None:
    kl = KlConfig(coefficient=0.1, adaptive=AdaptiveKl(target=1.0, horizon=20))
    learner = policy_of(tied_model, kl)
    learner.play(rollouts, score_batch(NINE_SCORES))
    adapted = learner.state()[1]["kl_coefficient"]
    assert adapted != 0.1
    learner.take_settings(learner.config)
    assert learner.state()[1]["kl_coefficient"] == adapted
