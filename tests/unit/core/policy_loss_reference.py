"""The policy losses written again in float64 numpy, token by token: value by formula, gradient by derivation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
LOW, HIGH, LENGTH = 0.2, 0.3, 7
AGGREGATIONS = ("token_mean", "sequence_mean", "constant")
TOKEN_LOSSES = ("ppo", "cispo", "reinforce")
CASES = [(loss, a) for loss in TOKEN_LOSSES for a in AGGREGATIONS] + [("gspo", "none")]


@dataclass
class Batch:
    """Rows of tokens, ragged: log π, log π_old, importance weights, and an advantage a row."""

    new: list[Array]
    old: list[Array]
    weights: list[Array]
    advantages: list[float]


def token_share(aggregation: str, lengths: list[int], row: int) -> float:
    if aggregation == "token_mean":
        return 1.0 / sum(lengths)
    if aggregation == "sequence_mean":
        return 1.0 / (len(lengths) * lengths[row])
    return 1.0 / (len(lengths) * LENGTH)


def reference(name: str, aggregation: str, batch: Batch) -> tuple[float, list[Array]]:
    """Value and gradient, token by token, from the formulas."""
    lengths = [len(r) for r in batch.new]
    value, gradient = 0.0, [np.zeros(n) for n in lengths]
    for i, (new, old, w, a) in enumerate(
        zip(batch.new, batch.old, batch.weights, batch.advantages, strict=True)
    ):
        if name == "gspo":
            s = float(np.exp(np.mean(new - old)))
            clipped = min(max(s, 1 - LOW), 1 + HIGH)
            weight = float(np.mean(w)) / len(lengths)
            value -= min(s * a, clipped * a) * weight
            if s * a <= clipped * a:
                gradient[i] -= weight * a * s / lengths[i]
            continue
        share = token_share(aggregation, lengths, i)
        for t in range(lengths[i]):
            ratio = float(np.exp(new[t] - old[t]))
            clipped = min(max(ratio, 1 - LOW), 1 + HIGH)
            weight = w[t] * share
            if name == "ppo":
                value -= weight * min(ratio * a, clipped * a)
                gradient[i][t] -= weight * a * ratio if ratio * a <= clipped * a else 0.0
            elif name == "cispo":
                value -= weight * clipped * a * new[t]
                gradient[i][t] -= weight * clipped * a
            else:
                value -= weight * a * new[t]
                gradient[i][t] -= weight * a
    return value, gradient


def pad(rows: list[Array], filler: float, width: int) -> Tensor:
    padded = np.full((len(rows), width), filler)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)
