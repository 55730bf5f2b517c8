"""Every injected fault breaks its one thing, and nothing beside it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.faults import injections
from benchmarks.faults.case import NAN_FROM, OTHER_TEMPERATURE, SLEEP_AT, SLEEP_S
from benchmarks.faults.injections import INJECTIONS
from gad_ray.actors.critic import CriticActor
from gad_ray.batch import PromptBatch, RolloutBatch, SamplingSettings, WeightsSnapshot
from gad_ray.config import load_config
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.run import LimitsConfig
from gad_ray.controller import heldout
from gad_ray.core.discriminator import BradleyTerryLoss, ScoreReg
from gad_ray.errors import RolloutError, SyncError, TrainingError
from gad_ray.evaluation.heldout import identical_text_metrics, teacher_answers
from gad_ray.evaluation.scoring import score_texts
from gad_ray.learners import critic as critic_module
from gad_ray.learners import critic_batch
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.critic_metrics import share_rounded
from gad_ray.models.chat import ChatFormat, load_chat_format
from gad_ray.rollout.transformers_engine import TransformersEngine
from gad_ray.rollout.worker import RolloutWorker, probe_row
from tests.unit.builders import (
    TEACHER,
    assert_gradients_close,
    critic_config,
    critic_learner,
    gradients_of,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
    sampling,
    spread_scores,
    weights_of,
)


@pytest.fixture(scope="module")
def prompts() -> PromptBatch:
    return prompt_batch(3)


@pytest.fixture(scope="module")
def rollouts(chat: ChatFormat, prompts: PromptBatch) -> RolloutBatch:
    return rollout_batch(chat, prompts)


@pytest.fixture
def critic(tied_model: Path) -> CriticLearner:
    return critic_learner(critic_config(tied_model))


@pytest.fixture
def twin(tied_model: Path) -> CriticLearner:
    """The same critic, to be left healthy."""
    return critic_learner(critic_config(tied_model))


# -- the rollout worker -------------------------------------------------------------------------------


@pytest.fixture
def worker(tied_model: Path, chat: ChatFormat) -> RolloutWorker:
    engine = TransformersEngine(
        tied_model, precision="float32", stop_token_ids=chat.stop_token_ids, batch_sequences=8
    )
    return RolloutWorker(engine, chat, RolloutConfig(), LimitsConfig())


@pytest.fixture
def moved(tied_model: Path, chat: ChatFormat) -> WeightsSnapshot:
    """Weights of a policy that has gone somewhere else."""
    learner = policy_learner(policy_config(tied_model))
    return learner.snapshot(dtype="float32", probe=probe_row(chat), perturbation=0.5)


def texts(worker: RolloutWorker, prompts: PromptBatch) -> tuple[str, ...]:
    return worker.generate(prompts, sampling()).texts


def test_a_healthy_engine_takes_the_weights_that_the_sick_ones_are_given(
    worker: RolloutWorker, moved: WeightsSnapshot, prompts: PromptBatch
) -> None:
    before = texts(worker, prompts)
    assert worker.load_weights(moved) < 1e-3
    assert texts(worker, prompts) != before


def test_an_engine_that_ignores_weights_is_found_out_and_answers_no_more(
    worker: RolloutWorker, moved: WeightsSnapshot, prompts: PromptBatch
) -> None:
    injections.ignore_weights(worker)
    with pytest.raises(SyncError, match="the new weights did not take effect"):
        worker.load_weights(moved)
    assert worker.version == 0
    with pytest.raises(RolloutError, match="did not come to hold version"):
        texts(worker, prompts)


def test_a_forged_proof_tells_the_new_version_over_the_old_weights(
    worker: RolloutWorker, moved: WeightsSnapshot, prompts: PromptBatch
) -> None:
    before = texts(worker, prompts)
    injections.forge_proof(worker)
    assert worker.load_weights(moved) == 0.0
    assert worker.version == moved.version
    assert texts(worker, prompts) == before


def test_a_sleeper_sleeps_once_and_answers_as_ever(
    worker: RolloutWorker, prompts: PromptBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    healthy = [texts(worker, prompt_batch(3, step=step)) for step in (SLEEP_AT - 1, SLEEP_AT)]
    injections.sleep_once(worker)
    assert [texts(worker, prompt_batch(3, step=step)) for step in (SLEEP_AT - 1, SLEEP_AT)] == healthy
    assert slept == [SLEEP_S]


# -- the critic ---------------------------------------------------------------------------------------


def identical_diff(critic: CriticLearner, prompts: PromptBatch, rollouts: RolloutBatch) -> float:
    """As an evaluation measures it, of answers as they are given."""
    own = teacher_answers(prompts, rollouts)
    batch = list(zip(own.example_ids, own.texts, strict=True))
    (scores,) = score_texts(critic, prompts, [batch])
    return identical_text_metrics(scores)["eval/identical_text_diff"]


def test_an_end_on_one_side_moves_the_students_scores_alone_and_identical_text_shows_it(
    critic: CriticLearner,
    twin: CriticLearner,
    prompts: PromptBatch,
    rollouts: RolloutBatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = teacher_answers(prompts, rollouts)
    assert own.texts == tuple(TEACHER[int(i[1:])] for i in rollouts.example_ids)
    assert identical_diff(critic, prompts, rollouts) == 0.0
    # What is replaced is the module's, as in the actor's own process.
    monkeypatch.setattr(critic_batch, "_tokenise", critic_batch._tokenise)
    healthy, _ = twin.score_and_update(prompts, rollouts, num_watched=2)
    injections.read_one_sided_end(critic)
    sick, _ = critic.score_and_update(prompts, rollouts, num_watched=2)
    assert np.allclose(sick.teacher, healthy.teacher, atol=1e-5)
    assert np.abs(sick.student - healthy.student).min() > 1e-4
    marked = injections.marked(own)
    batch = list(zip(marked.example_ids, marked.texts, strict=True))
    (scores,) = score_texts(critic, prompts, [batch])
    assert identical_text_metrics(scores)["eval/identical_text_diff"] > 1e-4


def test_rounded_scores_are_those_of_a_healthy_critic_on_a_grid(
    critic: CriticLearner, twin: CriticLearner, prompts: PromptBatch, rollouts: RolloutBatch
) -> None:
    injections.round_scores(critic)
    sick, stats = critic.score_and_update(prompts, rollouts)
    healthy, sound = twin.score_and_update(prompts, rollouts)
    assert np.allclose(sick.student, healthy.student, rtol=2**-8)
    assert share_rounded(sick.student) == stats.metrics["critic/rounded_scores"] == 1.0
    assert sound.metrics["critic/rounded_scores"] < 0.5
    assert stats.num_steps == 1


def test_a_spoiled_row_ends_the_run_at_its_step_and_not_before(
    critic: CriticLearner, prompts: PromptBatch, rollouts: RolloutBatch
) -> None:
    injections.spoil_row(critic)
    for _ in range(NAN_FROM - 1):
        scores, _ = critic.score_and_update(prompts, rollouts)
        assert np.isfinite(scores.student).all()
    with pytest.raises(TrainingError, match="have a score that is not finite"):
        critic.score_and_update(prompts, rollouts)


def test_swapped_sides_turn_the_gradient_around_and_leave_the_scores(
    tied_model: Path, prompts: PromptBatch, rollouts: RolloutBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = BradleyTerryLoss(score_reg=ScoreReg(weight=0.0))
    sick, healthy = (critic_learner(critic_config(tied_model, loss=loss)) for _ in range(2))
    wanted = gradients_of(healthy, lambda: healthy.score_and_update(prompts, rollouts))
    monkeypatch.setattr(critic_module, "discriminator_loss", critic_module.discriminator_loss)
    injections.swap_sides(sick)
    found = gradients_of(sick, lambda: sick.score_and_update(prompts, rollouts))
    # −σ(−d/τ) and σ(d/τ) differ by 1 in all: near d = 0 both are a half.
    assert_gradients_close({name: -g for name, g in found.items()}, wanted, relative=0.2)
    scores = [one.score_batch(prompts, rollouts).student for one in (sick, healthy)]
    assert scores[0].tolist() == scores[1].tolist()


def test_a_frozen_critic_learns_until_then_and_stands_still_from_then_on(
    critic: CriticLearner, prompts: PromptBatch, rollouts: RolloutBatch
) -> None:
    injections.freeze(critic, after=2)
    before = weights_of(critic)
    for _ in range(2):
        critic.score_and_update(prompts, rollouts)
    learned = weights_of(critic)
    assert any(not torch.equal(learned[name], tensor) for name, tensor in before.items())
    _, stats = critic.score_and_update(prompts, rollouts)
    assert all(torch.equal(weights_of(critic)[name], tensor) for name, tensor in learned.items())
    assert stats.metrics["critic/grad_norm"] > 0.0
    assert stats.num_skipped == 0


def test_another_template_is_read_in_the_evaluation_alone(
    critic: CriticLearner, tied_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = critic.model.encoder
    training = critic.fingerprint()
    config = SimpleNamespace(
        critic=SimpleNamespace(model=SimpleNamespace(model=str(tied_model))),
    )
    actor = SimpleNamespace(learner=critic, _config=config)
    other = injections._other_template(actor, lambda: critic.model.encoder)
    assert other is not own
    assert critic.model.encoder is own
    monkeypatch.setattr(injections, "load_chat_format", lambda _: chat_of("bracket", tied_model))
    assert injections._other_template(actor, critic.fingerprint).differing(training) == ("template",)

    def fails() -> None:
        raise SyncError("gone")

    with pytest.raises(SyncError):
        injections._other_template(actor, fails)
    assert critic.model.encoder is own


def chat_of(word: str, directory: Path) -> ChatFormat:
    """The model's tokenizer with another template."""
    own = load_chat_format(directory)
    return ChatFormat(own.tokenizer, f"{word} " + own.template_text)


# -- the policy and the driver --------------------------------------------------------------------------


def test_every_second_loss_that_is_spoiled_is_skipped_and_the_others_are_taken(
    tied_model: Path, rollouts: RolloutBatch
) -> None:
    learner = policy_learner(policy_config(tied_model), mini_batch_prompts=3)
    learner.begin_adversarial()
    injections.spoil_losses(learner)
    skipped = [learner.play(rollouts, spread_scores(rollouts)).num_skipped for _ in range(4)]
    assert skipped == [0, 1, 0, 1]


def test_the_evaluation_is_sampled_at_another_temperature_and_nothing_else_of_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[SamplingSettings] = []

    def answer(config: Any, groups: Any, prompts: Any) -> str:
        asked.append(SamplingSettings.of(config.rollout, num_responses=1, seed=config.evaluation.seed))
        return f"{groups} {prompts}"

    monkeypatch.setattr(heldout, "answer", answer)
    config = load_config("quickstart")
    assert heldout.answer(config, "groups", "prompts") == "groups prompts"  # type: ignore[arg-type]
    INJECTIONS["other-temperature-at-evaluation"]()
    assert heldout.answer(config, "groups", "prompts") == "groups prompts"  # type: ignore[arg-type]
    healthy, sick = asked
    assert (healthy.temperature, sick.temperature) == (0.8, OTHER_TEMPERATURE)
    assert {name: getattr(sick, name) for name in ("top_p", "max_tokens", "seed")} == {
        name: getattr(healthy, name) for name in ("top_p", "max_tokens", "seed")
    }
    assert config.rollout.temperature == 0.8


# -- the actors that carry them -------------------------------------------------------------------------


def test_a_sick_actor_is_the_healthy_one_but_for_one_method() -> None:
    told: list[Any] = []

    def around(_actor: Any, method: Any, *arguments: Any) -> Any:
        told.append(arguments)
        return method(*arguments)

    class Actor:
        def work(self, amount: int) -> int:
            return 2 * amount

        def rest(self) -> str:
            return "well"

    sick = injections.sick_actor(Actor, "work", around)()
    assert (sick.work(3), sick.rest(), told) == (6, "well", [(3,)])
    assert isinstance(sick, Actor)


def test_what_ray_notes_on_a_method_is_kept() -> None:
    broken = injections.sick_actor(CriticActor, "score_and_update", lambda *_: None)
    noted = {
        name: value for name, value in vars(CriticActor.score_and_update).items() if name.startswith("__ray")
    }
    assert noted
    assert {name: getattr(broken.score_and_update, name) for name in noted} == noted


@pytest.mark.parametrize("name", [name for name in INJECTIONS if not name.startswith("other-temperature")])
def test_an_injection_replaces_one_kind_of_actor_in_this_process(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("RolloutActor", "CriticActor", "PolicyActor")
    before = {kind: getattr(injections._GROUPS[kind], kind) for kind in kinds}
    for kind, actor in before.items():
        monkeypatch.setattr(injections._GROUPS[kind], kind, actor)
    INJECTIONS[name]()
    changed = [kind for kind in kinds if getattr(injections._GROUPS[kind], kind) is not before[kind]]
    assert len(changed) == 1
    assert issubclass(getattr(injections._GROUPS[changed[0]], changed[0]), before[changed[0]])
