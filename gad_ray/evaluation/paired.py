"""How a critic judges pairs of a teacher's and a student's response to the same prompts, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from gad_ray.batch import Float32, Metrics
from gad_ray.core.preference import wins
from gad_ray.evaluation.intervals import Interval, areas, bootstrap, bootstrap_mean


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
    return PairedVerdict(
        d_acc=bootstrap_mean(wins(teacher, student), seed=seed),
        score_diff=bootstrap_mean(teacher.astype(np.float64) - student, seed=seed),
        auc=bootstrap(lambda i: areas(teacher[i], student[i]), size=len(teacher), seed=seed),
    )
