"""A pooling of one's own: a response is as good as its worst stretch. See docs/extending/pooling.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gad_ray.core.pooling import POOLINGS, PoolingSettings, TokenValues

if TYPE_CHECKING:
    from torch import Tensor


class WorstPooling(PoolingSettings):
    """The mean of a response's ``count`` lowest token values, or of all where it has fewer."""

    name: str = "examples.extending.worst_pooling:WorstPooling"
    count: int = Field(default=4, ge=1)
    """Tokens that are looked at."""


@POOLINGS.register(WorstPooling)
def worst_pool(tokens: TokenValues, settings: WorstPooling) -> Tensor:
    """The mean of the lowest values of each row."""
    lowest = tokens.values.float().masked_fill(~tokens.mask, float("inf")).sort(dim=-1).values
    lowest = lowest[:, : settings.count]
    seen = lowest.isfinite()
    return lowest.masked_fill(~seen, 0.0).sum(-1) / seen.sum(-1)
