"""From the mean to the last token's value, over the course of the training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from gad_ray.core.pooling.base import POOLINGS, PoolingSettings, TokenValues
from gad_ray.core.pooling.last import last_pool
from gad_ray.core.pooling.mean import mean_pool

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class BlendPooling(PoolingSettings):
    """(1 − α) · mean + α · last, with α rising linearly from 0 to 1 over the critic's optimiser steps."""

    name: Literal["blend"] = "blend"
    blend_start: int = Field(ge=0)
    """Optimiser steps of the critic up to which α is 0."""

    blend_end: int = Field(ge=0)
    """Optimiser steps of the critic from which on α is 1."""

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.blend_end < self.blend_start:
            raise ValueError(
                f"blend_end = {self.blend_end} comes before blend_start = {self.blend_start}: let it end later"
            )
        return self

    def share(self, updates: int) -> float:
        """α after so many optimiser steps."""
        return blend_share(updates, start=self.blend_start, end=self.blend_end)

    def described(self, updates: int) -> str:
        """The settings, and α at this point."""
        return json.dumps({"pooling": self.model_dump_json(), "share": self.share(updates)})


@POOLINGS.register(BlendPooling)
def _pool(tokens: TokenValues, settings: BlendPooling) -> Tensor:
    return blend_pool(tokens.values, tokens.mask, share=settings.share(tokens.updates))


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
