"""The value of the last scored token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def last_position(mask: Bool[Tensor, "batch seq"]) -> Int[Tensor, " batch"]:
    """Position of the last token that is scored; at least one must be in every row."""
    positions = torch.arange(mask.shape[-1], device=mask.device)
    return torch.where(mask, positions, -1).amax(-1)


def last_pool(values: Float[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, " batch"]:
    """v at the last unmasked position, in float32.

    Args:
        values: Value of each token.
        mask: True on the tokens that are scored; at least one in every row.

    Returns:
        float32 scores.
    """
    return values.gather(-1, last_position(mask)[:, None]).squeeze(-1).float()
