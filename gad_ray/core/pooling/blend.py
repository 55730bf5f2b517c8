"""From the mean to the last token's value, over the course of the training."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from gad_ray.core.pooling.last import last_pool
from gad_ray.core.pooling.mean import mean_pool


def blend_share(updates: int, *, start: int, end: int) -> float:
    """α, the last token's share: 0 up to ``start``, 1 from ``end`` on, linear between them.

    Args:
        updates: Optimiser steps that the critic has taken.
        start: Steps up to which α is 0.
        end: Steps from which on α is 1; not below ``start``.
    """
    if updates >= end:
        return 1.0
    return 0.0 if updates <= start else (updates - start) / (end - start)


def blend_pool(
    values: Float[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"], *, share: float
) -> Float[Tensor, " batch"]:
    """(1 − α) · mean + α · last, in float32.

    Args:
        values: Value of each token.
        mask: True on the tokens that are scored; at least one in every row.
        share: α in [0, 1].

    Returns:
        float32 scores.
    """
    return (1.0 - share) * mean_pool(values, mask) + share * last_pool(values, mask)
