"""What a discriminator achieves that never reads: one that sees only length, one that sees only the surface.

Each is a linear Bradley-Terry model, trained as the critic is (the teacher's answer above the student's to the same
prompt), and judged on prompts that it was not trained on. Where one of them reaches 0.9, a critic has no need to
learn anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from gad_ray.batch import Int64
from gad_ray.core.preference import wins
from gad_ray.evaluation.intervals import Interval, areas, bootstrap, bootstrap_mean

MIN_PROMPTS = 20
"""Fewer prompts than this say nothing."""

MAX_PAIRS = 4000
"""Pairs that are looked at, drawn by seed from more."""

_FOLDS = 5
_PENALTY = 1.0
_NAMED = 5

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A feature and what it says.

    Attributes:
        feature: Its name.
        weight: Its coefficient, per standard deviation: positive where more of it speaks for the teacher.
        teacher: Its mean over the teacher's answers.
        student: Its mean over the student's.
    """

    feature: str
    weight: float
    teacher: float
    student: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Discriminator:
    """One discriminator's verdict.

    Attributes:
        name: ``length-only`` or ``surface-only``.
        d_acc: Share of pairs in which the teacher's answer is put above the student's, the mean over prompts, by
            cross-validation; its 95 % interval is a bootstrap over prompts.
        auc: Chance that any teacher's answer is put above any student's, of one pair a prompt.
        num_prompts: Prompts.
        num_pairs: Pairs.
        weights: Its strongest features: those that add most to the mean difference of the sides.
    """

    name: str
    d_acc: Interval
    auc: Interval
    num_prompts: int
    num_pairs: int
    weights: tuple[Weight, ...]


def discriminate(
    name: str, features: Sequence[str], teacher: Matrix, student: Matrix, prompts: Int64, *, seed: int
) -> Discriminator | None:
    """Train and judge one discriminator.

    Args:
        name: What to call it.
        features: F names.
        teacher: [N, F] features of the teacher's answers.
        student: [N, F] features of the student's answers to the same prompts.
        prompts: [N] which prompt each pair belongs to: a prompt is in one fold only.
        seed: Of the folds and the bootstrap.

    Returns:
        The verdict; None where fewer than ``MIN_PROMPTS`` prompts have pairs.
    """
    distinct, prompt = np.unique(prompts, return_inverse=True)
    if len(distinct) < MIN_PROMPTS:
        return None
    scale = np.concatenate([teacher, student]).std(axis=0)
    scale[scale < 1e-9] = np.inf  # what never varies says nothing
    centre = np.concatenate([teacher, student]).mean(axis=0)
    own, other = (teacher - centre) / scale, (student - centre) / scale
    fold_of_prompt = np.random.default_rng(seed).permutation(len(distinct)) % _FOLDS
    scores_t, scores_s = np.zeros(len(own)), np.zeros(len(own))
    for fold in range(_FOLDS):
        held = fold_of_prompt[prompt] == fold
        weights = _fit(own[~held] - other[~held])
        scores_t[held], scores_s[held] = own[held] @ weights, other[held] @ weights
    per_prompt = np.bincount(prompt, weights=wins(scores_t, scores_s)) / np.bincount(prompt)
    first = np.unique(prompt, return_index=True)[1]
    one_t, one_s = scores_t[first].astype(np.float32), scores_s[first].astype(np.float32)
    weights = _fit(own - other)
    # By what each adds to the mean difference of the sides: two features that say the same may have great weights
    # of opposite signs, and add nothing.
    order = np.argsort(-np.abs(weights * (own - other).mean(axis=0)))[:_NAMED]
    return Discriminator(
        name=name,
        d_acc=bootstrap_mean(per_prompt, seed=seed),
        auc=bootstrap(lambda i: areas(one_t[i], one_s[i]), size=len(distinct), seed=seed),
        num_prompts=len(distinct),
        num_pairs=len(own),
        weights=tuple(
            Weight(
                feature=features[i],
                weight=float(weights[i]),
                teacher=float(teacher[:, i].mean()),
                student=float(student[:, i].mean()),
            )
            for i in map(int, order)
            if abs(weights[i]) > 1e-6
        ),
    )


def _fit(differences: Matrix) -> NDArray[np.float64]:
    """[F] weights that minimise Σ softplus(−x·w) + |w|²/2 over the differences x [N, F] of standardised features."""

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = differences @ weights
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * _PENALTY * (weights @ weights)
        # −σ(−margin), without overflow.
        slope = -np.exp(-np.logaddexp(0.0, margin))
        return float(value), differences.T @ slope + _PENALTY * weights

    start = np.zeros(differences.shape[1])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)
