"""How sure a figure is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gad_ray.batch import Float32

_CONFIDENCE = 0.95
_RESAMPLES = 2000
_CHUNK = 2_000_000
"""Indices drawn at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def auc(teacher: Float32, student: Float32) -> float:
    """Chance that a teacher's response scores above a student's, whatever their prompts; a tie counts half.

    The area under the ROC curve of the score as a detector of the teacher: 0.5 where it cannot tell them apart.
    Meant for a critic whose score is absolute, as one trained by cross-entropy.

    Args:
        teacher: [N] scores.
        student: [M] scores.
    """
    return float(areas(teacher, student))


def areas(teacher: Float32, student: Float32) -> NDArray[np.float64]:
    """As :func:`auc`, for many draws at once.

    Args:
        teacher: [..., N] scores.
        student: [..., M] scores.

    Returns:
        [...] areas.
    """
    # The statistic of Mann and Whitney, less its p-value: a bootstrap asks for it thousands of times.
    n, m = teacher.shape[-1], student.shape[-1]
    ranks = stats.rankdata(np.concatenate([teacher, student], axis=-1), axis=-1)
    return (ranks[..., :n].sum(axis=-1) - n * (n + 1) / 2) / (n * m)


def bootstrap(figure: Callable[[NDArray[np.int64]], Any], *, size: int, seed: int) -> Interval:
    """The percentile bootstrap of a figure over units that were drawn independently (Efron, 1979).

    Args:
        figure: [..., size] indices of units, of which one may come more than once → [...] figures of these units.
        size: Number of units.
        seed: Of the draws.
    """
    units = np.arange(size)
    value = float(figure(units))
    if size == 1:
        # There is nothing else to draw.
        return Interval(value=value, low=value, high=value)
    drawn = stats.bootstrap(
        (units,),
        lambda index, axis: figure(index),  # noqa: ARG005 - scipy names it, and it is the last
        vectorized=True,
        method="percentile",
        n_resamples=_RESAMPLES,
        batch=max(1, _CHUNK // size),
        confidence_level=_CONFIDENCE,
        rng=seed,
    )
    interval = drawn.confidence_interval
    return Interval(value=value, low=float(interval.low), high=float(interval.high))


def bootstrap_mean(values: Sequence[float] | NDArray[Any], *, seed: int) -> Interval:
    """The mean of figures that were drawn independently, with its interval.

    Args:
        values: [N], one of each unit.
        seed: Of the draws.
    """
    known = np.asarray(values, dtype=np.float64)
    return bootstrap(lambda index: known[index].mean(axis=-1), size=len(known), seed=seed)


def over_repeats(values: Sequence[float]) -> Interval:
    """The mean of independent repeats with Student's interval; its ends are infinite for a single repeat."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(value=mean, low=-np.inf, high=np.inf)
    error = float(stats.sem(values))
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, len(values) - 1)) * error
    return Interval(value=mean, low=mean - half, high=mean + half)
