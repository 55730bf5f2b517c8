"""Whoever scores takes any critic: a value head, a rule, one that an earlier run exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from examples.extending.length_critic import LengthCritic, LengthCriticSettings
from gad_ray.batch import Fingerprint
from gad_ray.config.critic import ExportedCriticSettings
from gad_ray.critics import CRITICS, Critic, ValueHeadCritic
from gad_ray.critics.base import SETTINGS_FILE
from gad_ray.critics.frozen import FrozenCriticLearner
from gad_ray.critics.store import open_critic
from gad_ray.errors import ConfigError, ModelError, TrainingError
from gad_ray.evaluation.scoring import score_rows, score_texts
from gad_ray.learners.collective import LocalCollective
from tests.unit.builders import critic_config, critic_learner, prompt_batch, rollout_batch

ANSWERS = [[("e0", "It is blue."), ("e1", "I do not know that one.")], [("e0", "Blue")]]


@pytest.fixture(scope="module")
def exported(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("critics") / "critic"
    critic_learner(critic_config(tied_model)).export(directory)
    return directory


@pytest.fixture(params=["training", "exported", "rule"])
def critic(request: pytest.FixtureRequest, tied_model: Path, exported: Path) -> Critic:
    match request.param:
        case "training":
            return critic_learner(critic_config(tied_model))
        case "exported":
            return open_critic(exported)
        case _:
            return LengthCritic(LengthCriticSettings(words=3))


def test_every_critic_scores_answers_and_comes_back_from_its_export(critic: Critic, tmp_path: Path) -> None:
    prompts = prompt_batch(2)
    scored = score_texts(critic, prompts, ANSWERS)
    assert [len(batch) for batch in scored] == [2, 1]
    assert all(batch.critic_version == critic.step == 0 for batch in scored)
    assert critic.export(tmp_path / "again") == critic.fingerprint()
    again = open_critic(tmp_path / "again")
    assert again.fingerprint() == critic.fingerprint()
    for one, other in zip(scored, score_texts(again, prompts, ANSWERS), strict=True):
        np.testing.assert_array_equal(one.student, other.student)
        np.testing.assert_array_equal(one.teacher, other.teacher)
    [row] = score_rows(tmp_path / "again", [{"content": "Why?", "response": "One two three."}])
    assert row["fingerprint"] == critic.fingerprint().digest


def test_an_export_by_settings_that_opens_another_critic_is_refused(tmp_path: Path) -> None:
    LengthCritic(LengthCriticSettings(words=3)).export(tmp_path)
    told = json.loads((tmp_path / SETTINGS_FILE).read_text())
    told["settings"]["words"] = 4
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(told))
    with pytest.raises(ModelError, match="its weights have changed"):
        open_critic(tmp_path)
    (tmp_path / SETTINGS_FILE).write_text('{"settings": {"name": "nobody"}}')
    with pytest.raises(ModelError, match="cannot be used"):
        open_critic(tmp_path)


def test_an_exported_critic_stands_in_for_the_one_that_learns(chat, tied_model: Path, exported: Path) -> None:
    prompts = prompt_batch(3)
    rollouts = rollout_batch(chat, prompts)
    config = critic_config(tied_model, frozen=ExportedCriticSettings(path=str(exported)))
    frozen, learner = (
        FrozenCriticLearner(config, collective=LocalCollective()),
        critic_learner(critic_config(tied_model)),
    )
    wanted = learner.score_batch(prompts, rollouts)
    found, stats = frozen.score_and_update(prompts, rollouts)
    np.testing.assert_allclose(found.student, wanted.student, atol=1e-5)
    np.testing.assert_allclose(found.teacher, wanted.teacher, atol=1e-5)
    assert stats.num_steps == 0
    assert "critic/d_acc" in stats.metrics
    assert "critic/d_loss" not in stats.metrics
    assert frozen.fingerprint() == ValueHeadCritic.exported(exported).fingerprint()


def test_a_run_does_not_go_on_with_another_critic_than_it_began_with(tied_model: Path) -> None:
    config = critic_config(tied_model, frozen=LengthCriticSettings(words=3))
    learner = FrozenCriticLearner(config, collective=LocalCollective())
    tensors, plain = learner.state()
    learner.load_state(tensors, plain)
    plain["fingerprint"]["weights"] = "another"
    with pytest.raises(ConfigError, match="another critic than the run began with: its weights"):
        learner.load_state(tensors, plain)


def test_scores_that_are_not_finite_end_the_run(
    chat, tied_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompt_batch(2)
    learner = FrozenCriticLearner(
        critic_config(tied_model, frozen=LengthCriticSettings()), collective=LocalCollective()
    )
    monkeypatch.setattr(LengthCritic, "score", lambda self, pairs: np.full(len(pairs), np.nan, np.float32))
    with pytest.raises(TrainingError, match="of a rule are not finite"):
        learner.score_batch(prompts, rollout_batch(chat, prompts))


def test_settings_that_nobody_opens_are_named() -> None:
    class Nobody(ExportedCriticSettings):
        pass

    with pytest.raises(ConfigError, match="Nobody is the settings of no registered critic"):
        CRITICS.of(Nobody(path="x"))
    assert Fingerprint(weights="a", head="", template="", tokenizer="", pooling="", dtype="float32").digest
