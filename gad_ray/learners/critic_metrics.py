"""The figures of one critic step, all from the fresh rows and from before the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch import Metrics, RolloutBatch, ScoreBatch
from gad_ray.config.critic import BradleyTerryLoss, CriticConfig, FixedTemperature
from gad_ray.core.preference import preference
from gad_ray.learners.optim import StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticLosses:
    """Parts of the discriminator's loss over the global batch."""

    rank: float
    reg: float
    batch_mean: float
    batch_std: float
    temperature: float | None = None
    """τ that an adaptive temperature came to; None where it is fixed."""


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson correlation; 0 where one side does not vary."""
    if len(a) < 2 or float(np.std(a)) == 0.0 or float(np.std(b)) == 0.0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def critic_metrics(
    scores: ScoreBatch,
    rollouts: RolloutBatch,
    *,
    losses: CriticLosses | None,
    config: CriticConfig,
) -> Metrics:
    """Metrics of one step, named as on these users' boards.

    ``critic/score_diff`` is of raw scores always, also where the loss normalises them. Without losses, in a step
    that had nothing to learn from, there are only the figures of the scores.
    """
    firsts = [start for start, _ in rollouts.groups()]
    teacher, student = scores.teacher[firsts], scores.student
    both = np.concatenate([teacher, student])
    characters = np.asarray([len(text) for text in rollouts.texts], dtype=np.float32)
    metrics: Metrics = {
        "critic/d_acc": preference(scores.teacher, student),
        "critic/score_diff": float(np.mean(scores.teacher - student)),
        "critic/score_range": float(both.max() - both.min()),
        "critic/score_length_corr": correlation(student, characters),
    }
    for side, values in (("teacher", teacher), ("student", student)):
        metrics[f"critic/{side}_score_mean"] = float(values.mean())
        metrics[f"critic/{side}_score_std"] = float(values.std())
        metrics[f"critic/{side}_score_min"] = float(values.min())
        metrics[f"critic/{side}_score_max"] = float(values.max())
    return metrics if losses is None else {**metrics, **_loss_metrics(scores, teacher, losses, config)}


def _loss_metrics(
    scores: ScoreBatch, teacher: NDArray[np.float32], losses: CriticLosses, config: CriticConfig
) -> Metrics:
    loss = config.loss
    tau = loss.temperature.value if isinstance(loss.temperature, FixedTemperature) else losses.temperature
    assert tau is not None, "an adaptive temperature is found with the loss"
    # What the loss's sigmoid sees: with batch normalisation the difference is in units of its deviation.
    if isinstance(loss, BradleyTerryLoss):
        seen = ((scores.teacher - scores.student) / losses.batch_std - loss.margin) / tau
    else:
        seen = np.concatenate([teacher, -scores.student]) / tau
    metrics: Metrics = {
        "critic/d_loss": losses.rank + losses.reg,
        "critic/ranking_loss": losses.rank,
        "critic/score_reg": losses.reg,
        "critic/sigmoid_mean": float(np.mean(1.0 / (1.0 + np.exp(-seen.astype(np.float64))))),
        "critic/temperature": tau,
    }
    if isinstance(loss, BradleyTerryLoss) and loss.batch_norm:
        metrics["critic/batch_mean"] = losses.batch_mean
        metrics["critic/batch_std"] = losses.batch_std
    return metrics


def update_metrics(results: Sequence[StepResult]) -> Metrics:
    """Gradient and learning rate of a step's last update; nothing where there was none."""
    if not results:
        return {}
    last = results[-1]
    return {
        "critic/grad_norm": last.grad_norm,
        "critic/grad_norm_before_clip": last.grad_norm_before_clip,
        "critic/lr": last.lr,
    }
