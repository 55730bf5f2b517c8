from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gad_ray.core.policy_loss.ppo as policy_module
from gad_ray.batch import PromptBatch, RolloutBatch, StopReason
from gad_ray.config.models import LoraConfig, OptimizerConfig
from gad_ray.config.policy import KlConfig, TruncatedImportance
from gad_ray.core.advantages import GrpoAdvantage, Rewarded, grpo_advantages
from gad_ray.core.policy_loss import GspoLoss, PolicyLossStats, PpoLoss, ppo_loss
from gad_ray.errors import TrainingError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.policy import rows_of, teacher_row
from tests.unit.builders import (
    SMOOTH,
    GamePolicy,
    assert_close,
    drawn_by,
    gradients_of,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
    score_batch,
    spread_scores,
    weights_of,
)

SMALL = 150
NO_KL = KlConfig(coefficient=0.0)
LOSSES = pytest.mark.parametrize("loss", [PpoLoss(), GspoLoss()])


@pytest.fixture(scope="module")
def prompts() -> PromptBatch:
    return prompt_batch()


@pytest.fixture(scope="module")
def rollouts(chat: ChatFormat, prompts: PromptBatch) -> RolloutBatch:
    return rollout_batch(chat, prompts)


def learner_of(directory: Path, *, mini_batch_prompts: int = 4, **changed: Any) -> GamePolicy:
    learner = policy_learner(policy_config(directory, **changed), mini_batch_prompts=mini_batch_prompts)
    learner.begin_adversarial()
    return learner


Call = tuple[dict[str, Any], Tensor, PolicyLossStats]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What every call of the PPO loss was given (the log-probabilities apart), and its figures."""
    seen: list[Call] = []

    def record(logprobs: Tensor, **arguments: Any) -> tuple[Tensor, PolicyLossStats]:
        loss, stats = ppo_loss(logprobs, **arguments)
        seen.append((arguments, logprobs.detach().clone(), stats))
        return loss, stats

    monkeypatch.setattr(policy_module, "ppo_loss", record)
    return seen


# -- π_old -------------------------------------------------------------------------------------------


@LOSSES
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_the_first_pass_over_fresh_samples_has_a_ratio_of_exactly_1(
    tied_model: Path, rollouts: RolloutBatch, loss: Any, compute: str
):
    learner = learner_of(tied_model, loss=loss, model={"compute": compute}, micro_batch_tokens=SMALL)
    metrics = learner.play(rollouts, spread_scores(rollouts)).metrics
    assert metrics["actor/ratio_gap_max"] == 0.0
    assert metrics["actor/clipfrac"] == 0.0


def test_the_first_of_several_mini_batches_has_a_ratio_of_exactly_1_and_later_ones_do_not(
    tied_model: Path, rollouts: RolloutBatch, calls: list[Call]
):
    learner = learner_of(tied_model, mini_batch_prompts=2)
    stats = learner.play(rollouts, spread_scores(rollouts))
    first, second = (float(figures.max_ratio_gap) for _, _, figures in calls)
    assert first == 0.0
    assert stats.metrics["actor/ratio_gap_max"] == second > 0.0
    assert stats.num_steps == 2


def test_every_later_step_compares_with_the_policy_from_before_the_first(
    tied_model: Path, rollouts: RolloutBatch, calls: list[Call]
):
    pristine = learner_of(tied_model)
    rows = rows_of(rollouts)
    with torch.no_grad():
        halves = [pristine.model.token_logprobs(part).logprobs for part in (rows[:6], rows[6:])]
    learner = learner_of(tied_model, mini_batch_prompts=2, epochs_per_step=2)
    stats = learner.play(rollouts, spread_scores(rollouts))
    assert stats.num_steps == 4
    assert [bool((c[0]["old_logprobs"] == c[1]).all()) for c in calls] == [True, False, False, False]
    # The rows of a micro-batch are ordered by length: compare them as sets of sums.
    for i, (arguments, _, _) in enumerate(calls):
        found = sorted(arguments["old_logprobs"].sum(-1).tolist())
        assert found == pytest.approx(sorted(halves[i % 2].sum(-1).tolist()), rel=1e-5)


def test_a_second_epoch_has_a_ratio_other_than_1(tied_model: Path, rollouts: RolloutBatch, calls: list[Call]):
    learner_of(tied_model, epochs_per_step=2).play(rollouts, spread_scores(rollouts))
    gaps = [float(figures.max_ratio_gap) for _, _, figures in calls]
    assert gaps[0] == 0.0
    assert gaps[1] > 0.0


# -- gradient ----------------------------------------------------------------------------------------


def direct_gradient(
    learner: GamePolicy, rollouts: RolloutBatch, rewards: Tensor, weights: Tensor | None = None
) -> dict[str, Tensor]:
    """−Σ A_i w_t ∇log π(t)/num_tokens, which is the on-policy gradient of the PPO loss."""
    batch = Rewarded(
        rewards=rewards.double().numpy(),
        group=np.asarray([int(i[1:]) for i in rollouts.example_ids]),
        lengths=rollouts.response_tokens.lengths,
    )
    advantages = torch.from_numpy(grpo_advantages(batch, GrpoAdvantage())).float()
    out = learner.model.token_logprobs(rows_of(rollouts))
    (
        (-out.logprobs * advantages[:, None] * (1 if weights is None else weights)).sum()
        / rollouts.num_tokens
    ).backward()
    found = {n: p.grad.clone() for n, p in learner.model.named_parameters()}
    learner.model.zero_grad()
    return found


@pytest.mark.parametrize("budget", [1, SMALL, 16384])
def test_the_gradient_is_that_of_the_whole_batch_however_it_is_split(
    tied_model: Path, rollouts: RolloutBatch, budget: int
):
    learner = learner_of(tied_model, kl=NO_KL, micro_batch_tokens=budget)
    scores = spread_scores(rollouts)
    wanted = direct_gradient(learner, rollouts, torch.from_numpy(scores.student))
    found = gradients_of(learner, lambda: learner.play(rollouts, scores))
    assert_close(found, wanted, relative=1e-5)


@LOSSES
def test_micro_batches_change_neither_weights_nor_metrics(
    tied_model: Path, rollouts: RolloutBatch, loss: Any
):
    results = []
    for budget in (SMALL, 16384):
        learner = learner_of(
            tied_model,
            mini_batch_prompts=2,
            epochs_per_step=2,
            loss=loss,
            kl=KlConfig(coefficient=0.1),
            importance=TruncatedImportance(),
            micro_batch_tokens=budget,
        )
        stats = learner.play(rollouts, spread_scores(rollouts))
        results.append((weights_of(learner), {k: v for k, v in stats.metrics.items() if "perf" not in k}))
    assert_close(results[0][0], results[1][0], relative=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-3, abs=1e-6)


def test_importance_weights_correct_for_the_engines_probabilities(tied_model: Path, rollouts: RolloutBatch):
    learner = learner_of(tied_model, kl=NO_KL, importance=TruncatedImportance(cap=1.5))
    scores = spread_scores(rollouts)
    with torch.no_grad():
        out = learner.model.token_logprobs(rows_of(rollouts))
    # The engine gave every token −1.5.
    weights = torch.where(out.mask, (out.logprobs + 1.5).exp().clamp_max(1.5), 0.0)
    wanted = direct_gradient(learner, rollouts, torch.from_numpy(scores.student), weights)
    stats: list[Any] = []
    found = gradients_of(learner, lambda: stats.append(learner.play(rollouts, scores)))
    assert_close(found, wanted, relative=1e-5)
    # δ = log π_trainer − log π_rollout: mean |δ|, and the estimate mean e^δ − δ − 1 of KL(rollout‖trainer).
    delta = (out.logprobs + 1.5)[out.mask]
    metrics = stats[0].metrics
    assert metrics["rollout/mismatch_abs"] == pytest.approx(float(delta.abs().mean()), rel=1e-5)
    assert metrics["rollout/mismatch_kl"] == pytest.approx(float((delta.exp() - delta - 1).mean()), rel=1e-5)


@LOSSES
def test_a_step_makes_the_better_answers_likelier_than_the_worse_ones(
    tied_model: Path, rollouts: RolloutBatch, loss: Any
):
    learner = learner_of(tied_model, loss=loss, kl=NO_KL)
    better = np.arange(len(rollouts)) % 3 == 0
    rows = rows_of(rollouts)

    def gap() -> float:
        with torch.no_grad():
            out = learner.model.token_logprobs(rows)
        means = (out.logprobs.sum(-1) / out.mask.sum(-1)).numpy()
        return float(means[better].mean() - means[~better].mean())

    before = gap()
    learner.play(rollouts, score_batch(better.astype(np.float32).tolist()))
    assert gap() > before


def test_groups_without_spread_move_nothing(tied_model: Path, rollouts: RolloutBatch):
    learner = learner_of(tied_model)
    before = weights_of(learner)
    metrics = learner.play(rollouts, score_batch([0.25] * len(rollouts))).metrics
    assert metrics["actor/grad_norm"] == 0.0
    assert metrics["actor/adv_max"] == 0.0
    after = weights_of(learner)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


# -- KL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8.0)])
@pytest.mark.parametrize("model", ["tied_model", "untied_model"])
def test_the_divergence_from_the_reference_is_0_at_the_stages_start_and_positive_later(
    model: str, lora: LoraConfig | None, rollouts: RolloutBatch, request: pytest.FixtureRequest
):
    learner = policy_learner(policy_config(request.getfixturevalue(model), model={"lora": lora}))
    # The reference is the policy after its warm start, not the pretrained one.
    learner.fit(prompt_batch())
    learner.begin_adversarial()
    divergences = [learner.play(rollouts, spread_scores(rollouts)).metrics["actor/kl_loss"] for _ in range(3)]
    assert divergences[0] == 0.0
    assert 0.0 < divergences[1] < divergences[2]


def test_a_larger_coefficient_keeps_the_policy_nearer_its_reference(tied_model: Path, rollouts: RolloutBatch):
    divergences = []
    for coefficient in (1e-6, 10.0):
        learner = learner_of(
            tied_model, kl=KlConfig(coefficient=coefficient), optimizer=OptimizerConfig(lr=1e-2, **SMOOTH)
        )
        for _ in range(6):
            metrics = learner.play(rollouts, spread_scores(rollouts)).metrics
        divergences.append(metrics["actor/kl_loss"])
    assert divergences[1] < divergences[0]


def test_without_a_penalty_no_reference_is_kept(tied_model: Path, rollouts: RolloutBatch):
    learner = learner_of(tied_model, kl=NO_KL)
    metrics = learner.play(rollouts, spread_scores(rollouts)).metrics
    assert (metrics["actor/kl_loss"], metrics["actor/kl_share"]) == (0.0, 0.0)
    assert not any(name.startswith("reference/") for name in learner.state()[0])


# -- cross-entropy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8.0)])
def test_fitting_makes_the_teachers_text_likelier(
    tied_model: Path, prompts: PromptBatch, lora: LoraConfig | None
):
    config = policy_config(tied_model, model={"lora": lora}, optimizer=OptimizerConfig(lr=5e-3))
    learner = policy_learner(config)
    before = learner.teacher_nll(prompts.examples)
    losses = [learner.fit(prompts).metrics["actor/ce_loss"] for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert bool((learner.teacher_nll(prompts.examples) < before).all())
    assert learner.version == 5


def test_fitting_does_not_depend_on_micro_batches(tied_model: Path, prompts: PromptBatch):
    gradients, losses = [], []
    for budget in (SMALL, 16384):
        config = policy_config(tied_model, micro_batch_tokens=budget)
        learner = policy_learner(config)
        gradients.append(gradients_of(learner, partial(learner.fit, prompts)))
        losses.append(policy_learner(config).fit(prompts).metrics["actor/ce_loss"])
    assert_close(gradients[0], gradients[1], relative=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_cross_entropy_is_of_the_teachers_tokens_and_its_end_of_turn(
    tied_model: Path, prompts: PromptBatch, chat: ChatFormat
):
    learner = policy_learner(policy_config(tied_model))
    total = count = 0.0
    nll = []
    for example in prompts.examples:
        row = teacher_row(chat, example, end_of_turn=True)
        ids = torch.from_numpy(row.ids.astype(np.int64))
        with torch.no_grad():
            log_softmax = learner.model.lm(input_ids=ids[None]).logits[0].log_softmax(-1)
        chosen = log_softmax[row.start - 1 : -1].gather(-1, ids[row.start :, None])[:, 0]
        total, count = total - float(chosen.sum()), count + len(chosen)
        nll.append(-float(chosen[:-1].mean()))
    assert learner.teacher_nll(prompts.examples).tolist() == pytest.approx(nll, rel=1e-5)
    assert learner.fit(prompts).metrics["actor/ce_loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_warm_start_has_a_rate_of_its_own_and_the_game_starts_its_optimiser_afresh(
    tied_model: Path, prompts: PromptBatch, rollouts: RolloutBatch
):
    config = policy_config(tied_model, optimizer=OptimizerConfig(lr=1e-3, lr_warmup_steps=1))
    learner = policy_learner(config, warmup_lr=1e-2)
    rates = [learner.fit(prompts).metrics["actor/lr"] for _ in range(2)]
    assert rates == pytest.approx([5e-3, 1e-2])
    fitted = weights_of(learner)
    learner.begin_adversarial()
    assert all(torch.equal(w, fitted[n]) for n, w in weights_of(learner).items())
    assert not any(name.startswith("exp_avg") for name in learner.state()[0])
    assert learner.play(rollouts, spread_scores(rollouts)).metrics["actor/lr"] == pytest.approx(5e-4)


# -- losses that are not finite ----------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lambda loss: loss * float("inf"), lambda loss: loss + float("nan")])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_loss_that_is_not_finite_skips_the_step_counts_it_and_in_the_end_raises(
    tied_model: Path,
    rollouts: RolloutBatch,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Tensor], Tensor],
    compute: str,
):
    learner = learner_of(tied_model, model={"compute": compute})

    def damaged(*arguments: Any, **named: Any) -> tuple[Tensor, PolicyLossStats]:
        loss, stats = ppo_loss(*arguments, **named)
        return damage(loss), stats

    scores, before = spread_scores(rollouts), weights_of(learner)
    with monkeypatch.context() as patch:
        patch.setattr(policy_module, "ppo_loss", damaged)
        for _ in range(2):
            stats = learner.play(drawn_by(learner, rollouts), scores)
            assert (stats.num_steps, stats.num_skipped) == (0, 1)
        with pytest.raises(TrainingError, match=r"3 optimiser steps in a row.*max_nonfinite_steps = 2"):
            learner.play(drawn_by(learner, rollouts), scores)
    after = weights_of(learner)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    # The next good step is taken, and is the one that a learner without the trouble takes.
    learner.play(drawn_by(learner, rollouts), scores)
    untroubled = learner_of(tied_model, model={"compute": compute})
    untroubled.play(rollouts, scores)
    wanted = weights_of(untroubled)
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights_of(learner).items())


# -- sizes -------------------------------------------------------------------------------------------


def test_a_last_mini_batch_may_be_smaller(tied_model: Path, rollouts: RolloutBatch):
    stats = learner_of(tied_model, mini_batch_prompts=3).play(rollouts, spread_scores(rollouts))
    assert stats.num_steps == 2


def test_uneven_groups_and_responses_of_one_token_are_trained_on(tied_model: Path, chat: ChatFormat):
    uneven = rollout_batch(chat, prompt_batch(3), texts=[("a",), ("b", ""), ("The sky is.", "c", "d")])
    assert uneven.response_tokens.lengths.min() == 1
    stats = learner_of(tied_model).play(uneven, spread_scores(uneven))
    assert all(np.isfinite(value) for value in stats.metrics.values())
    assert stats.num_skipped == 0


def test_every_update_is_a_version(tied_model: Path, prompts: PromptBatch, rollouts: RolloutBatch):
    learner = policy_learner(policy_config(tied_model, epochs_per_step=2), mini_batch_prompts=2)
    learner.fit(prompts)
    learner.begin_adversarial()
    assert learner.version == 1
    learner.play(rollouts, spread_scores(rollouts))
    assert learner.version == 2


def test_cut_responses_are_trained_on_as_they_were_sampled(
    tied_model: Path, chat: ChatFormat, rollouts: RolloutBatch
):
    # A cut response has no end-of-turn token: none is added to it.
    cut = rollout_batch(
        chat,
        prompt_batch(),
        response_tokens=type(rollouts.response_tokens).from_rows(
            [row[:-1] for row in rollouts.response_tokens], np.int32
        ),
        logprobs=type(rollouts.logprobs).from_rows([row[:-1] for row in rollouts.logprobs], np.float32),
        stop_reasons=(StopReason.LENGTH,) * len(rollouts),
    )
    assert not any(chat.end_of_turn_id in row for row in cut.response_tokens)
    rows = rows_of(cut)
    assert sum(row.num_response_tokens for row in rows) == rollouts.num_tokens - len(rollouts)
