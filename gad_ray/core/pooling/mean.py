"""The mean of the scored tokens' values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gad_ray.core.pooling.base import POOLINGS, PoolingSettings, TokenValues

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class MeanPooling(PoolingSettings):
    """Mean of the per-token values over the response."""

    name: Literal["mean"] = "mean"


@POOLINGS.register(MeanPooling)
def _pool(tokens: TokenValues, _settings: MeanPooling) -> Tensor:
    return mean_pool(tokens.values, tokens.mask)


def mean_pool(values: Float[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, " batch"]:
    """Σ m_t v_t / Σ m_t, in float32.

    Every position's value enters the score, so that one token's noise is divided by the length.

    Args:
        values: Value of each token.
        mask: True on the tokens that are scored; at least one in every row.

    Returns:
        float32 scores.
    """
    import torch

    # where, not a product: a value that is not finite outside the mask must not reach the sum.
    masked = torch.where(mask, values.float(), 0.0)
    return masked.sum(-1) / mask.sum(-1)
