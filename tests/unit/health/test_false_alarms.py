"""Healthy games of every loss, aggregation, advantage and penalty set off no rule of the policy's by construction.

Real learners play real steps on a tiny model; what they report goes to the rules that a run goes by.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gad_ray.batch import Ragged, RolloutBatch
from gad_ray.config import RunConfig
from gad_ray.config.models import OptimizerConfig
from gad_ray.config.policy import AdaptiveKl, KlConfig
from gad_ray.core.advantages import DrGrpoAdvantage
from gad_ray.core.policy_loss import PpoLoss
from gad_ray.health import HealthMonitor
from gad_ray.models.policy import rows_of
from tests.unit.builders import SMOOTH, GamePolicy, drawn_by, policy_config, policy_learner, score_batch
from tests.unit.learners.variants import ADVANTAGES, POLICY_LOSSES, batch_of

STEPS = 12
"""More than the longest window of a rule that judges single steps."""

KLS: dict[str, dict[str, Any]] = {
    "no kl": {"coefficient": 0.0},
    **{
        f"{estimator} in {place}": {"estimator": estimator, "place": place, "coefficient": 0.001}
        for estimator in ("k1", "k2", "k3")
        for place in ("loss", "reward")
    },
    "adaptive": {"coefficient": 0.001, "adaptive": AdaptiveKl(target=0.01)},
}
GAMES: dict[str, dict[str, Any]] = {
    **{
        f"{loss}, {kl}": {"loss": POLICY_LOSSES[loss], "kl": KlConfig(**KLS[kl])}
        for loss in POLICY_LOSSES
        for kl in ("no kl", "k3 in loss")
    },
    **{f"{kl}, gspo": {"loss": POLICY_LOSSES["gspo"], "kl": KlConfig(**KLS[kl])} for kl in KLS},
    **{f"{one.name}, k3": {"advantage": one, "kl": KlConfig(**KLS["k3 in loss"])} for one in ADVANTAGES},
}


def drawn(learner: GamePolicy, step: int) -> RolloutBatch:
    """Responses with the log-probabilities that the policy of the moment gives them."""
    rollouts = drawn_by(learner, batch_of(learner.model.chat, step=step).rollouts)
    with torch.no_grad():
        out = learner.model.token_logprobs(rows_of(rollouts))
    values = [row[mask].numpy() for row, mask in zip(out.logprobs, out.mask, strict=True)]
    return replace(rollouts, logprobs=Ragged.from_rows(values, np.float32))


def judged(config: RunConfig, directory: Path, **policy: Any) -> tuple[set[str], list[dict[str, float]]]:
    """Rules that held at any step of a game, and the metrics of its steps."""
    fields = {"optimizer": OptimizerConfig(lr=3e-4, **SMOOTH), **policy}
    learner = policy_learner(policy_config(directory, **fields), mini_batch_prompts=4)
    learner.begin_adversarial()
    monitor, held, course = HealthMonitor(config), set[str](), []
    generator = np.random.default_rng(0)
    for step in range(1, STEPS + 1):
        rollouts = drawn(learner, step)
        scores = score_batch(generator.normal(size=len(rollouts)).tolist())
        metrics = dict(learner.play(rollouts, scores).metrics)
        course.append(metrics)
        monitor.observe(step=step, stage="adversarial", metrics=metrics)
        held |= monitor.active
    monitor.conclude()
    return held | monitor.active, course


@pytest.mark.parametrize("game", GAMES)
def test_a_healthy_game_sets_off_no_rule(config: RunConfig, tied_model: Path, game: str):
    held, course = judged(config, tied_model, **GAMES[game])
    assert held == set()
    assert all(0.0 <= metrics["actor/kl_share"] < 0.5 for metrics in course)


@pytest.mark.parametrize("loss", POLICY_LOSSES)
def test_a_penalty_that_drowns_the_loss_is_told_with_every_loss(
    config: RunConfig, tied_model: Path, loss: str
):
    fields = {"loss": POLICY_LOSSES[loss], "optimizer": OptimizerConfig(lr=3e-3, **SMOOTH)}
    held, _ = judged(config, tied_model, kl=KlConfig(coefficient=50.0), **fields)
    assert "kl-drowns-the-loss" in held


def test_the_share_is_that_of_the_gradients_worked_out_by_hand(tied_model: Path):
    """Per token |A|·ρ of the policy gradient beside c·|1 − e^δ| of k3, both over all tokens."""
    coefficient = 0.3
    fields = {"kl": KlConfig(coefficient=coefficient), "advantage": DrGrpoAdvantage()}
    loss = PpoLoss(clip_low=0.9, clip_high=9.0)
    optimizer = OptimizerConfig(lr=1e-3, **SMOOTH)
    learner = policy_learner(
        policy_config(tied_model, loss=loss, optimizer=optimizer, **fields), mini_batch_prompts=4
    )
    learner.begin_adversarial()
    first = drawn(learner, 1)
    scores = score_batch(np.random.default_rng(1).normal(size=len(first)).tolist())
    rows = rows_of(first)
    with torch.no_grad():
        before = learner.model.token_logprobs(rows)
    assert learner.play(first, scores).metrics["actor/kl_share"] == 0.0, "the reference is the policy itself"
    with torch.no_grad():
        now = learner.model.token_logprobs(rows)
    delta = (before.logprobs - now.logprobs)[now.mask]
    kl_push = coefficient * float((1.0 - delta.exp()).abs().sum())
    pg_push = 0.0
    for start, stop in first.groups():
        own = scores.student[start:stop]
        lengths = first.response_tokens.lengths[start:stop]
        pg_push += float((np.abs(own - own.mean()) * lengths).sum())
    again = learner.play(drawn_by(learner, first), scores).metrics["actor/kl_share"]
    assert again == pytest.approx(kl_push / (kl_push + pg_push), rel=1e-4)
