"""The mean of the scored tokens' values."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_pool(values: Float[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, " batch"]:
    """Σ m_t v_t / Σ m_t, in float32.

    Every position's value enters the score, so that one token's noise is divided by the length.

    Args:
        values: Value of each token.
        mask: True on the tokens that are scored; at least one in every row.

    Returns:
        float32 scores.
    """
    # where, not a product: a value that is not finite outside the mask must not reach the sum.
    masked = torch.where(mask, values.float(), 0.0)
    return masked.sum(-1) / mask.sum(-1)
