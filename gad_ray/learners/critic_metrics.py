"""The figures of one critic step, all from the fresh rows and from before the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch import Metrics, RolloutBatch, ScoreBatch
from gad_ray.config.critic import CriticConfig
from gad_ray.core.discriminator import BradleyTerryLoss, CrossEntropyLoss, FixedTemperature
from gad_ray.core.pooling import MixPooling, PoolingSettings
from gad_ray.core.preference import preference
from gad_ray.learners.collective import Collective
from gad_ray.learners.critic_batch import Group, in_order
from gad_ray.learners.optim import StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticLosses:
    """Parts of the discriminator's loss over the global batch."""

    rank: float
    reg: float
    sigmoid: float
    """Mean sigmoid that the loss sees."""
    batch_mean: float
    batch_std: float
    temperature: float | None = None
    """τ that an adaptive temperature came to; None where it is fixed."""


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson correlation; 0 where one side does not vary."""
    if len(a) < 2 or float(np.std(a)) == 0.0 or float(np.std(b)) == 0.0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def separation(teacher: NDArray[np.float32], student: NDArray[np.float32]) -> float | None:
    """(mean s_T − mean s_S) / √((var s_T + var s_S)/2); None where neither side varies.

    How far apart the sides lie in units of their own scatter: 1 to 2 goes with a healthy d_acc of 0.75 to 0.92 where
    scores are normal, whatever the scores' scale.
    """
    scatter = float(np.sqrt((np.var(teacher, dtype=np.float64) + np.var(student, dtype=np.float64)) / 2.0))
    return None if scatter == 0.0 else float(np.mean(teacher) - np.mean(student)) / scatter


def share_rounded(scores: NDArray[np.float32]) -> float:
    """Share of float32 numbers that bfloat16 holds exactly: of unrounded ones hardly any, by chance 1 in 65,536."""
    return float(np.mean((scores.view(np.uint32) & np.uint32(0xFFFF)) == 0))


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
        # On these users' boards the range is the teacher's.
        "critic/score_range": float(np.ptp(teacher)),
        "critic/score_range_both": float(np.ptp(both)),
        "critic/score_length_corr": correlation(student, characters),
        "critic/rounded_scores": share_rounded(both),
    }
    apart = separation(teacher, student)
    if apart is not None:
        metrics["critic/score_separation"] = apart
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
        sigmoid = _mean_sigmoid(seen)
    elif isinstance(loss, CrossEntropyLoss):
        sigmoid = _mean_sigmoid(np.concatenate([teacher, -scores.student]) / tau)
    else:
        sigmoid = losses.sigmoid
    metrics: Metrics = {
        "critic/d_loss": losses.rank + losses.reg,
        "critic/ranking_loss": losses.rank,
        "critic/score_reg": losses.reg,
        "critic/sigmoid_mean": sigmoid,
        "critic/temperature": tau,
    }
    if isinstance(loss, BradleyTerryLoss) and loss.batch_norm:
        metrics["critic/batch_mean"] = losses.batch_mean
        metrics["critic/batch_std"] = losses.batch_std
    return metrics


def _mean_sigmoid(seen: NDArray[np.float32]) -> float:
    return float(np.mean(1.0 / (1.0 + np.exp(-seen.astype(np.float64)))))


def trained_metrics(losses: CriticLosses, config: CriticConfig) -> Metrics:
    """What a batch of fresh and past responses together was trained on with, before the update.

    The same figures without ``trained_`` are of the fresh responses alone.
    """
    metrics: Metrics = {
        "critic/trained_d_loss": losses.rank + losses.reg,
        "critic/trained_ranking_loss": losses.rank,
        "critic/trained_score_reg": losses.reg,
        "critic/trained_sigmoid_mean": losses.sigmoid,
    }
    if isinstance(config.loss, BradleyTerryLoss) and config.loss.batch_norm:
        metrics["critic/trained_batch_mean"] = losses.batch_mean
        metrics["critic/trained_batch_std"] = losses.batch_std
    return metrics


def mix_metrics(
    groups: Sequence[Group], scores: ScoreBatch, *, collective: Collective, pooling: PoolingSettings
) -> Metrics:
    """Mean differences of both parts of a mixed score, before their weights; nothing for another pooling.

    Args:
        groups: This rank's groups, whose rows' lengths enter the score.
        scores: Of the fresh responses of all ranks.
        collective: The ranks that share the batch.
        pooling: Of the critic.
    """
    if not isinstance(pooling, MixPooling):
        return {}
    lengths = [np.asarray([len(row) - row.start for row in g.rows], dtype=np.float32) for g in groups]
    teacher_length, student_length = in_order(
        groups, lengths, collective=collective, num_responses=len(scores)
    )

    def last(score: NDArray[np.float32], length: NDArray[np.float32]) -> NDArray[np.float64]:
        # score = w_raw · s + w_norm · s / length, for s.
        return score / (pooling.w_raw + pooling.w_norm / length.astype(np.float64))

    teacher, student = last(scores.teacher, teacher_length), last(scores.student, student_length)
    return {
        "critic/mix_raw_score_diff": float(np.mean(teacher - student)),
        "critic/mix_norm_score_diff": float(np.mean(teacher / teacher_length - student / student_length)),
    }


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
