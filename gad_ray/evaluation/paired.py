"""How a critic judges pairs of a teacher's and a student's response to the same prompts, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gad_ray.batch import Float32, Metrics
from gad_ray.evaluation.intervals import Interval

_RESAMPLES = 2000
_CHUNK = 2_000_000
"""Numbers held at once."""

_Figure = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedVerdict:
    """Figures of a set of pairs with 95 % bootstrap intervals over prompts (percentile method; Efron, 1979).

    Attributes:
        d_acc: Share of the pairs in which the teacher scores higher; a tie counts half.
        score_diff: Mean of the teacher's minus the student's score.
        auc: Chance that a teacher's score exceeds a student's, whatever their prompts; a tie counts half.
    """

    d_acc: Interval
    score_diff: Interval
    auc: Interval

    def metrics(self, prefix: str) -> Metrics:
        """``{prefix}d_acc``, ``{prefix}d_acc_low``, ``{prefix}d_acc_high``, and so on."""
        named: Metrics = {}
        for field in fields(self):
            interval: Interval = getattr(self, field.name)
            named[f"{prefix}{field.name}"] = interval.value
            named[f"{prefix}{field.name}_low"] = interval.low
            named[f"{prefix}{field.name}_high"] = interval.high
        return named


def paired_verdict(teacher: Float32, student: Float32, *, seed: int = 0) -> PairedVerdict:
    """Judge pairs of which the i-th holds ``teacher[i]`` and ``student[i]``.

    Args:
        teacher: [N] scores, N ≥ 1.
        student: [N] scores of the responses to the same prompts.
        seed: Of the bootstrap's draws.
    """
    size = len(teacher)
    rng = np.random.default_rng(seed)
    figures: dict[str, _Figure] = {"d_acc": _preferred, "score_diff": _difference, "auc": _area}
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in figures}
    rows = max(1, _CHUNK // size)
    for start in range(0, _RESAMPLES, rows):
        index = rng.integers(size, size=(min(rows, _RESAMPLES - start), size))
        for name, figure in figures.items():
            drawn[name].append(figure(teacher[index], student[index]))
    found: dict[str, Interval] = {}
    for name, figure in figures.items():
        low, high = np.quantile(np.concatenate(drawn[name]), [0.025, 0.975])
        value = float(figure(teacher[None], student[None])[0])
        found[name] = Interval(value=value, low=float(low), high=float(high))
    return PairedVerdict(**found)


def _preferred(teacher: NDArray[Any], student: NDArray[Any]) -> NDArray[np.float64]:
    return np.mean((teacher > student) + 0.5 * (teacher == student), axis=1)


def _difference(teacher: NDArray[Any], student: NDArray[Any]) -> NDArray[np.float64]:
    return np.mean(teacher.astype(np.float64) - student, axis=1)


def _area(teacher: NDArray[Any], student: NDArray[Any]) -> NDArray[np.float64]:
    """The Mann-Whitney statistic of every row, from the ranks of the teacher's scores among all of the row."""
    size = teacher.shape[1]
    ranks = stats.rankdata(np.concatenate([teacher, student], axis=1), axis=1)
    return (ranks[:, :size].sum(axis=1) - size * (size + 1) / 2) / size**2
