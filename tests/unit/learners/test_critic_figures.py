"""What the critic's variants report, and which responses they learn from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gad_ray.batch import StopReason
from gad_ray.config.critic import ReplayConfig
from gad_ray.learners.critic_metrics import share_rounded
from gad_ray.models.chat import ChatFormat
from tests.unit.builders import assert_gradients_close, gradients_of
from tests.unit.learners.variants import CRITIC_LOSSES, CUT, batch_of, spread_critic


def test_an_adaptive_temperature_is_logged_exported_and_resumed(
    tied_model: Path, chat: ChatFormat, tmp_path: Path
):
    learner, batch = spread_critic(tied_model, loss=CRITIC_LOSSES["free"]), batch_of(chat)
    scores, stats = learner.score_and_update(batch.prompts, batch.rollouts)
    tau = 2.0 * float(np.abs(scores.teacher - scores.student).mean())
    assert stats.metrics["critic/temperature"] == pytest.approx(tau, rel=1e-5)
    learner.export(tmp_path / "critic")
    assert f'"temperature": {tau:.4f}'[:-1] in (tmp_path / "critic" / "critic.json").read_text()
    tensors, plain = learner.state()
    second = spread_critic(tied_model, loss=CRITIC_LOSSES["free"])
    second.load_state({name: t.clone() for name, t in tensors.items()}, plain)
    assert second.state()[1] == plain


def test_the_sigmoid_under_cross_entropy_is_how_sure_of_the_right_side_the_critic_is(
    tied_model: Path, chat: ChatFormat
):
    batch = batch_of(chat)
    scores, stats = spread_critic(tied_model, loss=CRITIC_LOSSES["cross-entropy"]).score_and_update(
        batch.prompts, batch.rollouts
    )
    firsts = [start for start, _ in batch.rollouts.groups()]
    right = np.concatenate([scores.teacher[firsts], -scores.student]).astype(np.float64) / 0.5
    assert stats.metrics["critic/sigmoid_mean"] == pytest.approx(
        float((1 / (1 + np.exp(-right))).mean()), rel=1e-5
    )
    wanted = np.log1p(np.exp(-right[:4])).mean() + np.log1p(np.exp(-right[4:])).mean()
    assert stats.metrics["critic/ranking_loss"] == pytest.approx(float(wanted), rel=1e-5)


def test_excluded_responses_are_scored_and_counted_but_not_learned_from(tied_model: Path, chat: ChatFormat):
    learner = spread_critic(tied_model, loss=CRITIC_LOSSES["fixed"], truncated="exclude")
    batch = batch_of(chat)
    before = learner.score_batch(batch.prompts, batch.rollouts)
    results: list[Any] = []
    found = gradients_of(
        learner, lambda: results.append(learner.score_and_update(batch.prompts, batch.rollouts))
    )
    scores, stats = results[0]
    np.testing.assert_allclose(scores.student, before.student, atol=1e-6, rtol=0)
    assert stats.metrics["critic/truncated_excluded"] == len(CUT)

    left = batch.rollouts.take([i for i in range(len(batch.rollouts)) if i not in CUT])
    without = spread_critic(tied_model, loss=CRITIC_LOSSES["fixed"])
    wanted = gradients_of(without, lambda: without.score_and_update(batch.prompts, left))
    assert_gradients_close(found, wanted)


def test_a_step_whose_responses_were_all_cut_changes_nothing(tied_model: Path, chat: ChatFormat):
    learner, batch = spread_critic(tied_model, truncated="exclude", replay=ReplayConfig()), batch_of(chat)
    count = len(batch.rollouts)
    cut = dataclasses.replace(batch.rollouts, stop_reasons=(StopReason.LENGTH,) * count)
    before = learner.fingerprint()
    scores, stats = learner.score_and_update(batch.prompts, cut)
    assert (len(scores), stats.num_steps, stats.num_skipped, learner.version) == (count, 0, 0, 0)
    assert learner.fingerprint() == before
    assert stats.metrics["critic/truncated_excluded"] == float(count)
    assert stats.metrics["critic/replay_size"] == 0.0
    assert "critic/d_acc" in stats.metrics
    assert "critic/d_loss" not in stats.metrics


def test_scores_that_went_through_bfloat16_are_told_from_those_that_did_not():
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert share_rounded(scores.numpy()) < 0.01
    assert share_rounded(scores.bfloat16().float().numpy()) == 1.0
    half = torch.cat([scores[:500], scores[500:].bfloat16().float()])
    assert share_rounded(half.numpy()) == pytest.approx(0.5, abs=0.01)
