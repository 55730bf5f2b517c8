"""The pooling that a configuration names, as it stands at a point of the critic's training."""

from __future__ import annotations

import json

from jaxtyping import Bool, Float
from torch import Tensor

from gad_ray.config.critic import BlendPooling, LastPooling, MeanPooling, MixPooling
from gad_ray.core.pooling import blend_pool, blend_share, last_pool, mean_pool, mix_pool

AnyPooling = MeanPooling | LastPooling | BlendPooling | MixPooling


def pool(
    values: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    pooling: AnyPooling,
    updates: int,
) -> Float[Tensor, " batch"]:
    """float32 scores of rows of values.

    Args:
        values: Value of each token.
        mask: True on the tokens that are scored; at least one in every row.
        pooling: The way of pooling.
        updates: Optimiser steps that the critic has taken.
    """
    match pooling:
        case MeanPooling():
            return mean_pool(values, mask)
        case LastPooling():
            return last_pool(values, mask)
        case BlendPooling():
            return blend_pool(values, mask, share=_share(pooling, updates))
        case MixPooling():
            return mix_pool(values, mask, raw_weight=pooling.w_raw, norm_weight=pooling.w_norm)


def describe_pooling(pooling: AnyPooling, *, updates: int) -> str:
    """All that scores depend on in a pooling, as text: its settings, and a blend's share at this point."""
    settings = pooling.model_dump_json()
    if not isinstance(pooling, BlendPooling):
        return settings
    return json.dumps({"pooling": settings, "share": _share(pooling, updates)})


def _share(pooling: BlendPooling, updates: int) -> float:
    return blend_share(updates, start=pooling.blend_start, end=pooling.blend_end)
