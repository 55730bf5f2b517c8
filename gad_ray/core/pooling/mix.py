"""The last token's value, as it is and divided by the length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from gad_ray.core.pooling.base import POOLINGS, PoolingSettings, TokenValues
from gad_ray.core.pooling.last import last_pool

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class MixPooling(PoolingSettings):
    """w_raw · s + w_norm · s / length, s being the value of the response's last token."""

    name: Literal["mix"] = "mix"
    w_raw: float = Field(default=0.7, ge=0.0)
    """Weight of the value as it is."""

    w_norm: float = Field(default=0.3, ge=0.0)
    """Weight of the value divided by the number of scored tokens."""

    @model_validator(mode="after")
    def _something_is_scored(self) -> Self:
        if self.w_raw == 0.0 and self.w_norm == 0.0:
            raise ValueError("w_raw and w_norm are both 0: every score would be 0")
        return self


@POOLINGS.register(MixPooling)
def _pool(tokens: TokenValues, settings: MixPooling) -> Tensor:
    return mix_pool(tokens.values, tokens.mask, raw_weight=settings.w_raw, norm_weight=settings.w_norm)


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
