"""The value of the last scored token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gad_ray.core.pooling.base import POOLINGS, PoolingSettings, TokenValues

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


class LastPooling(PoolingSettings):
    """Value of the response's last token."""

    name: Literal["last"] = "last"


@POOLINGS.register(LastPooling)
def _pool(tokens: TokenValues, _settings: LastPooling) -> Tensor:
    return last_pool(tokens.values, tokens.mask)


def last_position(mask: Bool[Tensor, "batch seq"]) -> Int[Tensor, " batch"]:
    """Position of the last token that is scored; at least one must be in every row."""
    import torch

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
