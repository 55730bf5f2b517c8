"""Advantages whitened over the whole batch (REINFORCE++ with a group baseline, arXiv 2501.03262)."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from torch import Tensor

from gad_ray.core.advantages.groups import centred


def reinforce_pp_advantages(
    rewards: Float[Tensor, " responses"], *, group: Int[Tensor, " responses"], std_floor: float
) -> Float[Tensor, " responses"]:
    """r − mean within each group, then less the batch's mean and divided by max(its std, floor).

    The standard deviation is the sample's (n − 1), over the responses of the whole batch.

    Args:
        rewards: One reward a response.
        group: Index of each response's group, from 0 on.
        std_floor: Smallest divisor, > 0.
    """
    if len(rewards) < 2:
        return rewards - rewards
    values = centred(rewards, group)
    values = values - values.mean()
    std = values.norm() / math.sqrt(len(rewards) - 1)
    return values / std.clamp_min(std_floor)
