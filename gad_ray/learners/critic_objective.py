"""What a critic minimises: its configured loss of scores, and the parts of it that are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import RolloutBatch, ScoreBatch
from gad_ray.core.discriminator import (
    DISCRIMINATORS,
    AdaptiveRange,
    AdaptiveTemperature,
    DiscriminatorSettings,
    DiscriminatorStats,
    PairScores,
)
from gad_ray.learners.critic_batch import Totals
from gad_ray.learners.critic_metrics import CriticLosses


def discriminator_loss(
    loss: DiscriminatorSettings,
    teacher: Tensor,
    student: Tensor,
    group: Tensor,
    totals: Totals,
    *,
    temperature: float | None = None,
) -> tuple[Tensor, DiscriminatorStats]:
    """The share of these scores in the loss of a global batch.

    Args:
        loss: Which loss, and its settings.
        teacher: [prompts] scores of the teacher's texts.
        student: [responses] scores of the policy's.
        group: [responses] place of each response's prompt in ``teacher``.
        totals: Numbers of prompts and responses of the global batch.
        temperature: τ; that of the settings when None.
    """
    scores = PairScores(
        teacher=teacher,
        student=student,
        group=group.to(student.device),
        temperature=loss.temperature.setting if temperature is None else temperature,
        num_prompts=totals.prompts,
        num_responses=totals.responses,
    )
    return DISCRIMINATORS.of(loss)(scores, loss)


def losses_from(
    loss: DiscriminatorSettings,
    stats: DiscriminatorStats | None,
    *,
    shares: Sequence[float] | None = None,
) -> CriticLosses:
    """The parts of a loss; what concerns the whole batch is taken where the loss looks at the whole batch.

    Args:
        loss: Which loss, and its settings.
        stats: Of the whole batch, where the loss looks at it or it was seen at once.
        shares: Sums over all parts of the batch of :func:`shares_of`; those of ``stats`` when None.
    """
    if shares is None:
        assert stats is not None
        shares = shares_of(stats)
    rank, reg, sigmoid = shares
    if stats is None or not loss.needs_whole_batch:
        return CriticLosses(rank=rank, reg=reg, sigmoid=sigmoid, batch_mean=0.0, batch_std=1.0)
    adaptive = isinstance(loss.temperature, AdaptiveTemperature)
    return CriticLosses(
        rank=rank,
        reg=reg,
        sigmoid=sigmoid,
        batch_mean=float(stats.batch_mean),
        batch_std=float(stats.batch_std),
        temperature=float(stats.temperature) if adaptive else None,
    )


def losses_of(
    loss: DiscriminatorSettings,
    scores: ScoreBatch,
    rollouts: RolloutBatch,
    learned: NDArray[np.bool_],
    *,
    temperature: float | None,
) -> CriticLosses:
    """The loss of responses alone that were scored before, at a given τ or the setting's.

    Args:
        loss: Which loss, and its settings.
        scores: The scores.
        rollouts: The responses.
        learned: [responses] which of them enter the loss.
        temperature: τ; that of the settings when None.
    """
    _, firsts, index = np.unique(rollouts.group_index()[learned], return_index=True, return_inverse=True)
    teacher = torch.from_numpy(scores.teacher[learned][firsts])
    student = torch.from_numpy(scores.student[learned])
    totals = Totals(prompts=len(teacher), responses=len(student))
    _, stats = discriminator_loss(
        loss, teacher, student, torch.from_numpy(index), totals, temperature=temperature
    )
    return losses_from(loss, stats)


def shares_of(stats: DiscriminatorStats) -> tuple[float, float, float]:
    """What one part of a batch adds to the ranking loss, to the penalty and to the mean sigmoid."""
    return float(stats.rank), float(stats.reg), float(stats.sigmoid)


def first_temperature(loss: DiscriminatorSettings) -> float:
    """τ before any update: an adaptive one's where all scores are equal."""
    setting = loss.temperature.setting
    return min(max(setting.a, setting.lo), setting.hi) if isinstance(setting, AdaptiveRange) else setting
