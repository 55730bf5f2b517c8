"""From a value per token to one score per response, one way a file."""

from gad_ray.core.pooling.blend import blend_pool, blend_share
from gad_ray.core.pooling.dense import dense_scores
from gad_ray.core.pooling.last import last_pool, last_position
from gad_ray.core.pooling.mean import mean_pool
from gad_ray.core.pooling.mix import mix_pool

__all__ = [
    "blend_pool",
    "blend_share",
    "dense_scores",
    "last_pool",
    "last_position",
    "mean_pool",
    "mix_pool",
]
