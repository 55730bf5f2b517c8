"""The terms of the policy's loss at work in the learner: aggregation, entropy, groups, KL, importance."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gad_ray.batch import Ragged, RolloutBatch
from gad_ray.config.models import OptimizerConfig
from gad_ray.config.policy import AdaptiveKl, KlConfig, RejectedImportance
from gad_ray.core.advantages import DrGrpoAdvantage, GrpoAdvantage, RankAdvantage
from gad_ray.core.policy_loss import ReinforceLoss
from gad_ray.models.chat import ChatFormat
from gad_ray.models.policy import rows_of
from tests.unit.builders import (
    SMOOTH,
    GamePolicy,
    assert_close,
    drawn_by,
    gradients_of,
    prompt_batch,
    rollout_batch,
    score_batch,
    weights_of,
)
from tests.unit.learners.variants import NINE_SCORES, game_policy


@pytest.fixture(scope="module")
def rollouts(chat: ChatFormat) -> RolloutBatch:
    """Three groups of three responses."""
    drawn = rollout_batch(chat, prompt_batch(3))
    logprobs = [[-5.5] * len(row) for row in drawn.response_tokens]
    return rollout_batch(chat, prompt_batch(3), logprobs=Ragged.from_rows(logprobs, np.float32))


def gradient(learner: GamePolicy, *batch: Any) -> dict[str, Tensor]:
    return gradients_of(learner, partial(learner.play, *batch))


def learner_of(directory: Path, **changed: Any) -> GamePolicy:
    return game_policy(directory, **{"optimizer": OptimizerConfig(lr=1e-2, **SMOOTH), **changed})


@pytest.mark.parametrize("how", ["token_mean", "sequence_mean", "constant"])
def test_the_gradient_is_the_policy_gradient_in_its_aggregation(
    tied_model: Path, rollouts: RolloutBatch, how: Any
):
    divisor = 64 if how == "constant" else None
    learner = learner_of(
        tied_model,
        advantage=DrGrpoAdvantage(),
        loss=ReinforceLoss(aggregation=how, length_divisor=divisor),
    )
    found = gradient(learner, rollouts, score_batch(NINE_SCORES))
    rewards = torch.tensor(NINE_SCORES).view(3, 3)
    advantages = (rewards - rewards.mean(-1, keepdim=True)).flatten()
    out = learner.model.token_logprobs(rows_of(rollouts))
    lengths = out.mask.sum(-1)
    per_row = -(advantages * out.logprobs.sum(-1))
    loss = {
        "token_mean": per_row.sum() / lengths.sum(),
        "sequence_mean": (per_row / lengths).mean(),
        "constant": per_row.sum() / (9 * 64),
    }[how]
    loss.backward()
    wanted = {n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None}
    assert_close(found, wanted, relative=1e-5, absolute=1e-9)


def test_the_entropy_bonus_adds_its_gradient(tied_model: Path, rollouts: RolloutBatch):
    plain = gradient(learner_of(tied_model), rollouts, score_batch(NINE_SCORES))
    learner = learner_of(tied_model, entropy_coefficient=0.5)
    found = gradient(learner, rollouts, score_batch(NINE_SCORES))
    out = learner.model.token_logprobs(rows_of(rollouts), entropy_gradient=True)
    (-0.5 * out.entropy[out.mask].mean()).backward()
    wanted = {n: plain[n] + p.grad for n, p in learner.model.named_parameters() if p.grad is not None}
    assert_close(found, wanted, relative=1e-4)


# -- groups without spread ------------------------------------------------------------------------------


def test_dropped_groups_leave_the_loss_and_its_denominators(tied_model: Path, rollouts: RolloutBatch):
    scores = [1.0, 3.0, -1.0, 2.0, 2.0, 2.0, 1.5, 1.0, 2.0]
    dropping = learner_of(tied_model, advantage=GrpoAdvantage(zero_spread="drop"))
    found = gradient(dropping, rollouts, score_batch(scores))
    rest = [0, 1, 2, 6, 7, 8]
    wanted = gradient(learner_of(tied_model), rollouts.take(rest), score_batch([scores[i] for i in rest]))
    assert_close(found, wanted, relative=1e-5, absolute=1e-9)
    keeping = gradient(learner_of(tied_model), rollouts, score_batch(scores))
    share = sum(len(rollouts.response_tokens[i]) for i in rest) / rollouts.num_tokens
    assert_close(keeping, {name: g * share for name, g in wanted.items()}, relative=1e-5, absolute=1e-9)


def test_a_batch_without_any_spread_moves_nothing_when_dropped(tied_model: Path, rollouts: RolloutBatch):
    learner = learner_of(tied_model, advantage=RankAdvantage(zero_spread="drop"))
    before = weights_of(learner)
    stats = learner.play(rollouts, score_batch([2.0] * 9))
    assert (stats.num_steps, stats.num_skipped, learner.version) == (0, 0, 1)
    assert stats.metrics["actor/dropped_samples"] == 9.0
    assert all(torch.equal(before[name], after) for name, after in weights_of(learner).items())


# -- KL -------------------------------------------------------------------------------------------------


def test_a_penalty_in_the_reward_takes_the_summed_divergence_from_it(
    tied_model: Path, rollouts: RolloutBatch
):
    kl = KlConfig(estimator="k1", place="reward", coefficient=0.25)
    learner = learner_of(tied_model, kl=kl, advantage=DrGrpoAdvantage())
    rows = rows_of(rollouts)
    with torch.no_grad():
        reference = learner.model.token_logprobs(rows).logprobs
    first = learner.play(rollouts, score_batch(NINE_SCORES)).metrics
    assert first["reward/kl_penalty_mean"] == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        sums = (learner.model.token_logprobs(rows).logprobs - reference).sum(-1)
    penalised = [s - 0.25 * float(kl) for s, kl in zip(NINE_SCORES, sums, strict=True)]
    plain = learner_of(tied_model, advantage=DrGrpoAdvantage())
    plain.model.load_state_dict(learner.model.state_dict())
    wanted = gradient(plain, rollouts, score_batch(penalised))
    found = gradient(learner, drawn_by(learner, rollouts), score_batch(NINE_SCORES))
    assert_close(found, wanted, relative=1e-4)


def test_the_coefficient_adapts_and_survives_a_checkpoint(tied_model: Path, rollouts: RolloutBatch):
    adaptive = AdaptiveKl(target=1e-6, horizon=9)
    kl = KlConfig(coefficient=0.1, adaptive=adaptive)
    learner = learner_of(tied_model, kl=kl)
    seen = [learner.play(rollouts, score_batch(NINE_SCORES)).metrics["actor/kl_coef"] for _ in range(3)]
    # The first step measures 0, which is below the target; the later ones are far above it.
    assert seen == pytest.approx([0.1, 0.08, 0.096])
    tensors, plain = learner.state()
    other = learner_of(tied_model, kl=kl)
    other.load_state({name: t.clone() for name, t in tensors.items()}, plain)
    ours, theirs = (one.play(rollouts, score_batch(NINE_SCORES)).metrics for one in (learner, other))
    assert ours["actor/kl_coef"] == theirs["actor/kl_coef"] == pytest.approx(0.1152)
    assert ours["actor/kl_loss"] == theirs["actor/kl_loss"]


def test_the_reference_is_renewed_when_due_also_after_a_restart(tied_model: Path, rollouts: RolloutBatch):
    kl = KlConfig(coefficient=0.1, refresh_every=2)
    learner = learner_of(tied_model, kl=kl)
    seen = []
    for _ in range(5):
        seen.append(learner.play(rollouts, score_batch(NINE_SCORES)).metrics["actor/kl_loss"])
        tensors, plain = learner.state()
        tensors = {name: t.clone() for name, t in tensors.items()}
        learner = learner_of(tied_model, kl=kl)
        learner.load_state(tensors, plain)
    assert [value > 1e-9 for value in seen] == [False, True, False, True, False]


# -- importance -------------------------------------------------------------------------------------------


def test_rejected_tokens_are_counted_and_add_nothing(tied_model: Path, rollouts: RolloutBatch):
    learner = learner_of(tied_model, importance=RejectedImportance(cap=1.2), advantage=DrGrpoAdvantage())
    out = learner.model.token_logprobs(rows_of(rollouts))
    ratio = (out.logprobs.detach() + 5.5).exp()
    rejected = out.mask & (ratio > 1.2)
    assert 0 < int(rejected.sum()) < rollouts.num_tokens
    rewards = torch.tensor(NINE_SCORES).view(3, 3)
    advantages = (rewards - rewards.mean(-1, keepdim=True)).flatten()[:, None]
    kept = torch.where(out.mask & ~rejected, -advantages * ratio * out.logprobs, 0.0)
    (kept.sum() / rollouts.num_tokens).backward()
    wanted = {n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None}
    learner.model.zero_grad()
    assert_close(gradient(learner, rollouts, score_batch(NINE_SCORES)), wanted, relative=1e-5, absolute=1e-9)
    fresh = learner_of(tied_model, importance=RejectedImportance(cap=1.2))
    metrics = fresh.play(rollouts, score_batch(NINE_SCORES)).metrics
    assert metrics["actor/importance_rejected_tokens"] == float(rejected.sum())
    assert metrics["actor/importance_clipfrac"] == pytest.approx(float(rejected.sum()) / rollouts.num_tokens)
