"""Leave-one-out advantages (RLOO, arXiv 2402.14740)."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from gad_ray.core.advantages.groups import centred, group_size


def rloo_advantages(
    rewards: Float[Tensor, " responses"], *, group: Int[Tensor, " responses"]
) -> Float[Tensor, " responses"]:
    """r minus the mean of the group's other rewards, which is n/(n − 1) · (r − mean).

    A group of one has no others: its advantage is 0.

    Args:
        rewards: One reward a response.
        group: Index of each response's group, from 0 on.
    """
    size = group_size(rewards, group)
    return centred(rewards, group) * size / (size - 1).clamp_min(1)
