"""The pooling that a configuration names, as it stands at a point of the critic's training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import assert_never

from jaxtyping import Bool, Float
from pydantic import TypeAdapter
from torch import Tensor

from gad_ray.config.critic import BlendPooling, LastPooling, MeanPooling, MixPooling, Pooling
from gad_ray.core.pooling import blend_pool, blend_share, last_pool, mean_pool, mix_pool

AnyPooling = MeanPooling | LastPooling | BlendPooling | MixPooling

_READER: TypeAdapter[AnyPooling] = TypeAdapter(Pooling)


def read_pooling(settings: Mapping[str, object]) -> AnyPooling:
    """A pooling from its settings, as ``model_dump`` gives them.

    Raises:
        pydantic.ValidationError: If they are those of no pooling.
    """
    return _READER.validate_python(dict(settings))


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
        case _:
            assert_never(pooling)


def describe_pooling(pooling: AnyPooling, *, updates: int) -> str:
    """All that scores depend on in a pooling, as text: its settings, and a blend's share at this point."""
    settings = pooling.model_dump_json()
    if not isinstance(pooling, BlendPooling):
        return settings
    return json.dumps({"pooling": settings, "share": _share(pooling, updates)})


def _share(pooling: BlendPooling, updates: int) -> float:
    return blend_share(updates, start=pooling.blend_start, end=pooling.blend_end)
