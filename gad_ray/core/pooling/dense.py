"""Scores laid out over the sequence, for rewards per token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gad_ray.core.pooling.last import last_position

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def dense_scores(
    scores: Float[Tensor, " batch"], mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """The score at the last unmasked position and 0 elsewhere: its sum over the sequence is the score.

    Args:
        scores: One score a row.
        mask: True on the tokens that are scored; at least one in every row.
    """
    import torch

    dense = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
    return dense.scatter(-1, last_position(mask)[:, None], scores[:, None])
