"""From a value per token to one score per response, one way a file, with its settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import SerializeAsAny, Tag

from gad_ray.core.pooling.base import POOLINGS, PoolingSettings, TokenValues
from gad_ray.core.pooling.blend import BlendPooling, blend_pool, blend_share
from gad_ray.core.pooling.dense import dense_scores
from gad_ray.core.pooling.last import LastPooling, last_pool, last_position
from gad_ray.core.pooling.mean import MeanPooling, mean_pool
from gad_ray.core.pooling.mix import MixPooling, mix_pool
from gad_ray.registry import BY_NAME, IMPORTED, imported
from gad_ray.strict_model import unnamed_means

__all__ = [
    "POOLINGS",
    "BlendPooling",
    "LastPooling",
    "MeanPooling",
    "MixPooling",
    "Pooling",
    "PoolingSettings",
    "TokenValues",
    "blend_pool",
    "blend_share",
    "dense_scores",
    "last_pool",
    "last_position",
    "mean_pool",
    "mix_pool",
]

Pooling = Annotated[
    Annotated[MeanPooling, Tag("mean")]
    | Annotated[LastPooling, Tag("last")]
    | Annotated[BlendPooling, Tag("blend")]
    | Annotated[MixPooling, Tag("mix")]
    | Annotated[SerializeAsAny[PoolingSettings], imported(PoolingSettings), IMPORTED],
    BY_NAME,
    unnamed_means("mean"),
]
"""How the values of a response's tokens become one score; a way of your own by ``name: module:Class``
(docs/extending/pooling.md)."""
