"""The quantities that health rules look at, read or derived from a step's metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

Metrics = Mapping[str, float]


class Signal(StrEnum):
    """A quantity that rules look at. Its value is the name under which a finding reports it."""

    D_ACC = "d_acc"
    SCORE_DIFF = "score_diff"
    SIGMOID_MEAN = "mean sigmoid(d/τ)"
    SCORE_STD = "score std"
    SCORE_MEAN_SIZE = "size of the mean score"
    SCORE_SIZE_MAX = "largest |score|"
    RANKING_LOSS = "ranking_loss"
    CRITIC_GRAD_NORM = "critic grad_norm"
    DISCRIMINATOR_REWARD = "discriminator reward"
    SCORE_LENGTH_CORR = "|corr(score, length)|"
    RESPONSE_LENGTH = "response length"
    TEACHER_LENGTH = "teacher's length"
    MISMATCH = "|log π_trainer − log π_rollout|"
    EVAL_D_ACC = "eval/d_acc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a signal comes from.

    Attributes:
        read: A step's metrics → the value, or None if the step does not tell it.
        sparse: The metric comes with few steps only: its latest value stands for the whole window.
    """

    read: Callable[[Metrics], float | None]
    sparse: bool = False


def _first(*names: str) -> Callable[[Metrics], float | None]:
    """The first of the metrics that the step has."""
    return lambda metrics: next((metrics[name] for name in names if name in metrics), None)


def _size(name: str) -> Callable[[Metrics], float | None]:
    return lambda metrics: abs(metrics[name]) if name in metrics else None


def _largest(*names: str, of: Callable[[float], float] = float) -> Callable[[Metrics], float | None]:
    """The largest of those of the metrics that the step has."""
    return lambda metrics: max((of(metrics[name]) for name in names if name in metrics), default=None)


def _sigmoid_mean(metrics: Metrics) -> float | None:
    """The mean of σ(d/τ) where it is logged, else σ of the mean d."""
    if "critic/sigmoid_mean" in metrics:
        return metrics["critic/sigmoid_mean"]
    if "critic/score_diff" not in metrics or "critic/temperature" not in metrics:
        return None
    # By tanh, which does not overflow however far the scores are apart.
    return 0.5 * (1.0 + math.tanh(0.5 * metrics["critic/score_diff"] / metrics["critic/temperature"]))


def _score_mean_size(metrics: Metrics) -> float | None:
    """|mean| of the teacher's and the student's scores together."""
    sides = [metrics[n] for n in ("critic/teacher_score_mean", "critic/student_score_mean") if n in metrics]
    return abs(sum(sides) / 2) if len(sides) == 2 else None


SOURCES: Mapping[Signal, Source] = {
    Signal.D_ACC: Source(read=_first("critic/d_acc")),
    Signal.SCORE_DIFF: Source(read=_first("critic/score_diff")),
    Signal.SIGMOID_MEAN: Source(read=_sigmoid_mean),
    Signal.SCORE_STD: Source(read=_largest("critic/teacher_score_std", "critic/student_score_std")),
    Signal.SCORE_MEAN_SIZE: Source(read=_score_mean_size),
    Signal.SCORE_SIZE_MAX: Source(
        read=_largest(
            *(f"critic/{side}_score_{end}" for side in ("teacher", "student") for end in ("min", "max")),
            of=abs,
        )
    ),
    Signal.RANKING_LOSS: Source(read=_first("critic/ranking_loss")),
    # Clipping hides an explosion: the norm before it counts.
    Signal.CRITIC_GRAD_NORM: Source(read=_first("critic/grad_norm_before_clip", "critic/grad_norm")),
    Signal.DISCRIMINATOR_REWARD: Source(read=_first("reward/discriminator_mean")),
    Signal.SCORE_LENGTH_CORR: Source(read=_size("critic/score_length_corr")),
    Signal.RESPONSE_LENGTH: Source(read=_first("response_length/mean")),
    Signal.TEACHER_LENGTH: Source(read=_first("response_length/teacher_mean")),
    # The mean difference never exceeds the mean size of the differences: it is a cautious stand-in.
    Signal.MISMATCH: Source(read=_first("rollout/mismatch_abs", "rollout/mismatch_kl")),
    Signal.EVAL_D_ACC: Source(read=_first("eval/d_acc"), sparse=True),
}


def read_signals(metrics: Metrics) -> dict[Signal, float]:
    """The signals that a step tells, without those that are not finite."""
    values = {signal: source.read(metrics) for signal, source in SOURCES.items()}
    return {signal: value for signal, value in values.items() if value is not None and math.isfinite(value)}
