"""The last token's value, as it is and divided by the length."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from gad_ray.core.pooling.last import last_pool


def mix_pool(
    values: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    raw_weight: float,
    norm_weight: float,
) -> Float[Tensor, " batch"]:
    """w_raw · s + w_norm · s / len, in float32, s being the value of the last scored token.

    Args:
        values: Value of each token.
        mask: True on the tokens that are scored, len of them; at least one in every row.
        raw_weight: w_raw.
        norm_weight: w_norm.

    Returns:
        float32 scores.
    """
    last = last_pool(values, mask)
    return raw_weight * last + norm_weight * last / mask.sum(-1)
