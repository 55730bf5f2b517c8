"""From a value per token to one score per response, one way a file, with its settings."""

from gad_ray.core.pooling.base import POOLINGS, PoolingSettings, TokenValues
from gad_ray.core.pooling.blend import BlendPooling, blend_pool, blend_share
from gad_ray.core.pooling.dense import dense_scores
from gad_ray.core.pooling.last import LastPooling, last_pool, last_position
from gad_ray.core.pooling.mean import MeanPooling, mean_pool
from gad_ray.core.pooling.mix import MixPooling, mix_pool

__all__ = [
    "POOLINGS",
    "BlendPooling",
    "LastPooling",
    "MeanPooling",
    "MixPooling",
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
