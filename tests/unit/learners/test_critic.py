import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gad_ray.core.discriminator.bradley_terry as objective
from gad_ray.batch import PromptBatch, ScoreBatch
from gad_ray.config.models import LoraConfig, OptimizerConfig
from gad_ray.core.discriminator import BradleyTerryLoss, FixedTemperature, ScoreReg, bradley_terry_loss
from gad_ray.core.pooling import MixPooling
from gad_ray.errors import TrainingError
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.critic_metrics import CriticLosses, correlation, critic_metrics, separation
from gad_ray.models.chat import ChatFormat
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import load_critic
from gad_ray.models.pairs import Pair, TokenRow
from tests.unit.builders import (
    SMOOTH,
    STUDENT,
    TEACHER,
    assert_close,
    critic_config,
    critic_learner,
    gradients_of,
    pair,
    prompt_batch,
    rollout_batch,
    weights_of,
)

# Three sizes of group; one response is the teacher's own text, two are the same.
TEXTS = (STUDENT[0], (TEACHER[1], "a list"), ("340", "340", "51", "391"), STUDENT[3])
SMALL = 150  # about three rows


def learner_of(directory: Path, **changed: Any) -> CriticLearner:
    learner = critic_learner(critic_config(directory, **changed))
    # The fresh head's scores are close to 0: spread them, so that the loss has curvature and a penalty.
    with torch.no_grad():
        learner.model.head.weight.mul_(30.0)
    return learner


def loss_config(**changed: Any) -> BradleyTerryLoss:
    fields = {
        "temperature": FixedTemperature(value=0.5),
        "score_reg": ScoreReg(threshold=0.1, weight=0.1),
        "margin": 0.2,
    }
    return BradleyTerryLoss(**{**fields, **changed})


@pytest.fixture(scope="module")
def prompts() -> PromptBatch:
    return prompt_batch()


@pytest.fixture(scope="module")
def rollouts(chat: ChatFormat, prompts: PromptBatch):
    return rollout_batch(chat, prompts, texts=TEXTS)


def flat_pairs(prompts: PromptBatch) -> list[Any]:
    return [pair(e.messages[0].content, t) for e, g in zip(prompts.examples, TEXTS, strict=True) for t in g]


# -- scores ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [1, 3])
@pytest.mark.parametrize("budget", [SMALL, 16384])
def test_judge_gives_the_scores_from_before_the_update_in_the_rollouts_order(
    tied_model: Path, prompts, rollouts, budget: int, updates: int
):
    learner = learner_of(tied_model, micro_batch_tokens=budget, updates_per_step=updates)
    wanted = learner.score(flat_pairs(prompts))
    teacher = learner.score([pair(e.messages[0].content, e.teacher_response) for e in prompts.examples])
    batch, _ = learner.score_and_update(prompts, rollouts)
    np.testing.assert_allclose(batch.student, wanted, atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        batch.teacher, np.repeat(teacher, [len(group) for group in TEXTS]), atol=1e-5, rtol=0
    )
    assert batch.critic_version == 0
    after = learner.score_batch(prompts, rollouts)
    assert after.critic_version == updates
    assert np.abs(after.student - batch.student).max() > 1e-3


def test_the_order_of_prompts_need_not_be_that_of_the_rollouts(tied_model: Path, prompts, rollouts):
    learner = learner_of(tied_model)
    reversed_prompts = PromptBatch(step=prompts.step, examples=prompts.examples[::-1])
    plain, turned = (learner.score_batch(p, rollouts) for p in (prompts, reversed_prompts))
    assert plain.student.tolist() == turned.student.tolist()


def test_a_prompt_without_responses_is_left_out(tied_model: Path, chat: ChatFormat, prompts):
    some = PromptBatch(step=1, examples=prompts.examples[1:3])
    rollouts = rollout_batch(chat, some, texts=TEXTS[1:3])
    learner = learner_of(tied_model)
    with_all, _ = learner.score_and_update(prompts, rollouts)
    with_some, _ = learner_of(tied_model).score_and_update(some, rollouts)
    assert with_all.student.tolist() == with_some.student.tolist()


def test_a_response_that_is_the_teachers_text_scores_as_it_to_the_bit(tied_model: Path, prompts, rollouts):
    batch, _ = learner_of(tied_model, micro_batch_tokens=SMALL).score_and_update(prompts, rollouts)
    place = rollouts.texts.index(TEACHER[1])
    assert batch.student[place] - batch.teacher[place] == 0.0
    first, second = (i for i, text in enumerate(rollouts.texts) if text == "340")
    assert batch.student[first] == batch.student[second]


def test_equal_texts_of_a_group_are_computed_once(
    tied_model: Path, prompts, rollouts, monkeypatch: pytest.MonkeyPatch
):
    learner, rows = learner_of(tied_model), []
    row_values = CriticModel.row_values

    def count(self: CriticModel, given: Sequence[TokenRow]) -> Tensor:
        rows.extend(given)
        return row_values(self, given)

    monkeypatch.setattr(CriticModel, "row_values", count)
    learner.score_batch(prompts, rollouts)
    # 4 teachers and 12 responses, less the teacher's own text and one of two equal answers.
    assert (len(rollouts), len(rows)) == (12, 14)


def test_scores_that_are_not_finite_are_refused_as_such(tied_model: Path, prompts, rollouts):
    learner = learner_of(tied_model)
    with torch.no_grad():
        learner.model.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"12 of 12 pairs have a score that is not finite"):
        learner.score_and_update(prompts, rollouts)


# -- gradient ----------------------------------------------------------------------------------------


def direct_gradient(
    learner: CriticLearner, prompts: PromptBatch, loss: BradleyTerryLoss
) -> dict[str, Tensor]:
    """The gradient of one loss over all rows in one pass, nothing shared or split."""
    encode, scores = learner.model.encoder.encode, learner.model.scores
    teacher = scores([encode(pair(e.messages[0].content, e.teacher_response)) for e in prompts.examples])
    student = scores([encode(one) for one in flat_pairs(prompts)])
    value, _ = bradley_terry_loss(
        teacher,
        student,
        group=torch.repeat_interleave(torch.arange(4), torch.tensor([len(g) for g in TEXTS])),
        temperature=loss.temperature.value,
        margin=loss.margin,
        reg_threshold=loss.score_reg.threshold,
        reg_weight=loss.score_reg.weight,
        batch_norm=loss.batch_norm,
    )
    value.backward()
    found = {n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None}
    learner.model.zero_grad()
    return found


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("budget", [1, SMALL, 16384])
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    tied_model: Path, prompts, rollouts, batch_norm: bool, budget: int
):
    loss = loss_config(batch_norm=batch_norm)
    learner = learner_of(tied_model, loss=loss, micro_batch_tokens=budget)
    wanted = direct_gradient(learner, prompts, loss)
    found = gradients_of(learner, lambda: learner.score_and_update(prompts, rollouts))
    assert_close(found, wanted, relative=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_micro_batches_do_not_change_what_is_logged(tied_model: Path, prompts, rollouts, batch_norm: bool):
    logged = []
    for budget in (SMALL, 16384):
        learner = learner_of(tied_model, loss=loss_config(batch_norm=batch_norm), micro_batch_tokens=budget)
        _, stats = learner.score_and_update(prompts, rollouts)
        logged.append({k: v for k, v in stats.metrics.items() if not k.startswith("timing")})
    assert logged[0] == pytest.approx(logged[1], rel=1e-4, abs=1e-5)
    assert ("critic/batch_std" in logged[0]) == batch_norm


def test_with_adapters_only_they_and_the_head_are_trained(tied_model: Path, prompts, rollouts):
    model = {"lora": LoraConfig(rank=4, alpha=8.0)}
    learner = learner_of(tied_model, model=model, optimizer=OptimizerConfig(lr=1e-2))
    before = weights_of(learner)
    first = learner.score_and_update(prompts, rollouts)[1].metrics["critic/ranking_loss"]
    moved = {n for n, w in weights_of(learner).items() if not torch.equal(w, before[n])}
    assert {"head.weight"} < moved
    assert all("lora_" in name or name.startswith("head.") for name in moved)
    for _ in range(3):
        _, stats = learner.score_and_update(prompts, rollouts)
    assert stats.metrics["critic/ranking_loss"] < first


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_the_critic_learns_to_tell_the_teacher(tied_model: Path, chat: ChatFormat, prompts, compute: str):
    rollouts = rollout_batch(chat, prompts)
    learner = learner_of(
        tied_model, model={"compute": compute}, optimizer=OptimizerConfig(lr=3e-3), loss=loss_config()
    )
    _, first = learner.score_and_update(prompts, rollouts)
    for _ in range(12):
        _, last = learner.score_and_update(prompts, rollouts)
    assert last.metrics["critic/ranking_loss"] < 0.5 * first.metrics["critic/ranking_loss"]
    assert last.metrics["critic/d_acc"] == 1.0


def test_the_head_has_a_rate_of_its_own(tied_model: Path, prompts, rollouts):
    steps = []
    for head_lr in (None, 1e-2):
        optimizer = OptimizerConfig(lr=1e-3, **SMOOTH)
        learner = learner_of(tied_model, head_lr=head_lr, optimizer=optimizer)
        before = weights_of(learner)
        learner.score_and_update(prompts, rollouts)
        after = weights_of(learner)
        steps.append({name: after[name] - before[name] for name in before})
    (plain, own), name = steps, next(n for n in steps[0] if n.endswith("up_proj.weight"))
    assert torch.allclose(own["head.weight"], 10 * plain["head.weight"], rtol=1e-3, atol=1e-6)
    assert torch.equal(own[name], plain[name])


def test_several_updates_a_step_are_several_steps(tied_model: Path, prompts, rollouts):
    learner = learner_of(tied_model, updates_per_step=3, loss=loss_config())
    _, stats = learner.score_and_update(prompts, rollouts)
    assert (stats.num_steps, learner.version) == (3, 3)
    once = learner_of(tied_model, loss=loss_config())
    for _ in range(3):
        once.score_and_update(prompts, rollouts)
    assert_close(weights_of(learner), weights_of(once), relative=1e-6)


# -- losses that are not finite ----------------------------------------------------------------------


def test_a_loss_that_is_not_finite_skips_the_step_counts_it_and_in_the_end_raises(
    tied_model: Path, prompts, rollouts, monkeypatch: pytest.MonkeyPatch
):
    learner = learner_of(tied_model)
    monkeypatch.setattr(
        objective, "bradley_terry_loss", lambda *a, **k: infinite(bradley_terry_loss(*a, **k))
    )
    before = weights_of(learner)
    for _ in range(2):
        _, stats = learner.score_and_update(prompts, rollouts)
        assert (stats.num_steps, stats.num_skipped, learner.version) == (0, 1, 0)
    with pytest.raises(TrainingError, match="3 optimiser steps in a row"):
        learner.score_and_update(prompts, rollouts)
    after = weights_of(learner)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def infinite(result: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    return result[0] * float("inf"), result[1]


# -- state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_restored_critic_goes_on_bit_for_bit(tied_model: Path, prompts, rollouts, compute: str):
    first = learner_of(tied_model, model={"compute": compute})
    first.score_and_update(prompts, rollouts)
    tensors, plain = first.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    second = critic_learner(critic_config(tied_model, model={"compute": compute}))
    second.load_state(saved, plain)
    assert second.version == 1
    assert second.fingerprint() == first.fingerprint()
    one, other = (learner.score_and_update(prompts, rollouts)[0] for learner in (first, second))
    assert one.student.tolist() == other.student.tolist()
    assert second.fingerprint() == first.fingerprint()


def test_an_exported_critic_scores_as_the_learner_does(tied_model: Path, tmp_path: Path, prompts, rollouts):
    learner = learner_of(tied_model)
    learner.score_and_update(prompts, rollouts)
    learner.export(tmp_path / "critic")
    loaded = load_critic(tmp_path / "critic")
    pairs = flat_pairs(prompts)
    assert loaded.score(pairs, micro_batch_tokens=16384).tolist() == learner.score(pairs).tolist()


# -- metrics -----------------------------------------------------------------------------------------


def metrics_of(chat: ChatFormat, tied_model: Path, loss: BradleyTerryLoss, losses: CriticLosses):
    # Two prompts with two and one responses; the teacher's scores 2 and −1 count once a prompt.
    rollouts = rollout_batch(chat, prompt_batch(2), texts=[("ab", "abcd"), ("abc",)])
    scores = ScoreBatch(
        teacher=np.asarray([2.0, 2.0, -1.0], dtype=np.float32),
        student=np.asarray([0.5, 3.0, -1.0], dtype=np.float32),
        critic_version=0,
    )
    return critic_metrics(scores, rollouts, losses=losses, config=critic_config(tied_model, loss=loss))


def test_the_figures_of_a_step_are_those_worked_out_by_hand(chat: ChatFormat, tied_model: Path):
    losses = CriticLosses(rank=0.8, reg=0.2, sigmoid=0.6, batch_mean=0.0, batch_std=1.0)
    found = metrics_of(
        chat, tied_model, loss_config(margin=0.5, temperature=FixedTemperature(value=2.0)), losses
    )
    wanted = {
        "critic/d_acc": 0.5,  # win, loss, tie
        "critic/d_loss": 1.0,
        "critic/ranking_loss": 0.8,
        "critic/score_reg": 0.2,
        "critic/score_diff": 1 / 6,  # (1.5 − 1 + 0)/3
        "critic/score_range": 3.0,  # the teacher's
        "critic/score_range_both": 4.0,
        # (0.5 − 0.8333333)/√((2.25 + 2.7222222)/2)
        "critic/score_separation": -0.2114065,
        # σ(0.5), σ(−0.75), σ(−0.25): (0.6224593 + 0.3208213 + 0.4378235)/3
        "critic/sigmoid_mean": 0.4603680,
        # Lengths 2, 4, 3 against 0.5, 3, −1: covariance (−1·−0.3333 + 1·2.1667 + 0)/3 = 0.8333,
        # deviations √(2/3) and √(8.1667/3) = 1.6499
        "critic/score_length_corr": 0.8333333 / (math.sqrt(2 / 3) * math.sqrt(8.1666667 / 3)),
        "critic/temperature": 2.0,
        "critic/rounded_scores": 1.0,  # halves are numbers of bfloat16
        "critic/teacher_score_mean": 0.5,
        "critic/teacher_score_std": 1.5,
        "critic/teacher_score_min": -1.0,
        "critic/teacher_score_max": 2.0,
        "critic/student_score_mean": 2.5 / 3,
        "critic/student_score_std": math.sqrt(8.1666667 / 3),
        "critic/student_score_min": -1.0,
        "critic/student_score_max": 3.0,
    }
    assert found == pytest.approx(wanted, abs=1e-6)


def test_under_batch_normalisation_the_difference_stays_raw_and_the_sigmoid_is_what_the_loss_sees(
    chat: ChatFormat, tied_model: Path
):
    losses = CriticLosses(rank=0.8, reg=0.2, sigmoid=0.6, batch_mean=0.7, batch_std=0.5)
    loss = loss_config(margin=0.0, temperature=FixedTemperature(value=2.0), batch_norm=True)
    found = metrics_of(chat, tied_model, loss, losses)
    assert found["critic/score_diff"] == pytest.approx(1 / 6)
    assert (found["critic/batch_mean"], found["critic/batch_std"]) == (0.7, 0.5)
    # d/0.5/2 = d: σ(1.5), σ(−1), σ(0): (0.8175745 + 0.2689414 + 0.5)/3
    assert found["critic/sigmoid_mean"] == pytest.approx(0.5288386, abs=1e-6)


def test_sides_that_do_not_vary_have_no_separation_and_its_scale_does_not_matter():
    one, two = np.asarray([1.0, 3.0], dtype=np.float32), np.asarray([-2.0, 0.0], dtype=np.float32)
    # (2 + 1)/√((1 + 1)/2)
    assert separation(one, two) == pytest.approx(3.0)
    assert separation(7 * one, 7 * two) == pytest.approx(3.0)
    assert separation(one[:1], two[:1]) is None


def test_a_mixed_scores_difference_is_logged_in_its_two_parts(tied_model: Path, prompts, rollouts):
    pooling = MixPooling(w_raw=0.7, w_norm=0.3)
    learner = learner_of(tied_model, pooling=pooling)
    _, stats = learner.score_and_update(prompts, rollouts)
    fresh = learner_of(tied_model, pooling=pooling)
    raw, norm = [], []
    for example_id, text in zip(rollouts.example_ids, rollouts.texts, strict=True):
        example = next(e for e in prompts.examples if e.id == example_id)
        parts = []
        for answer in (example.teacher_response, text):
            row = fresh.model.encoder.encode(Pair(example.messages, answer))
            last = float(fresh.model.score_rows([row])[1][0][-1])
            parts.append((last, last / (len(row) - row.start)))
        raw.append(parts[0][0] - parts[1][0])
        norm.append(parts[0][1] - parts[1][1])
    found = stats.metrics
    assert found["critic/mix_raw_score_diff"] == pytest.approx(np.mean(raw), abs=1e-5)
    assert found["critic/mix_norm_score_diff"] == pytest.approx(np.mean(norm), abs=1e-5)
    whole = 0.7 * found["critic/mix_raw_score_diff"] + 0.3 * found["critic/mix_norm_score_diff"]
    assert whole == pytest.approx(found["critic/score_diff"], abs=1e-5)
    assert abs(found["critic/mix_raw_score_diff"]) > 1e-4
    _, mean_pooled = learner_of(tied_model).score_and_update(prompts, rollouts)
    assert not any("mix" in name for name in mean_pooled.metrics)


def test_a_side_that_does_not_vary_has_no_correlation():
    ones, ramp = np.ones(3, dtype=np.float32), np.arange(3, dtype=np.float32)
    assert correlation(ones, ramp) == correlation(ramp, ones) == correlation(ramp[:1], ramp[:1]) == 0.0
    assert correlation(ramp, -ramp) == pytest.approx(-1.0)


def test_the_step_reports_the_gradient_before_and_after_clipping(tied_model: Path, prompts, rollouts):
    config = critic_config(tied_model, optimizer=OptimizerConfig(lr=1e-3, grad_clip=1e-3))
    _, stats = critic_learner(config).score_and_update(prompts, rollouts)
    assert stats.metrics["critic/grad_norm"] == pytest.approx(1e-3, rel=1e-2)
    assert stats.metrics["critic/grad_norm_before_clip"] > 1e-2
    assert dataclasses.asdict(stats)["num_skipped"] == 0
