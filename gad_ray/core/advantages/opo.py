"""Advantages against the length-weighted baseline (OPO, arXiv 2505.23585)."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from gad_ray.core.advantages.groups import group_sum


def opo_advantages(
    rewards: Float[Tensor, " responses"],
    *,
    group: Int[Tensor, " responses"],
    lengths: Int[Tensor, " responses"],
) -> Float[Tensor, " responses"]:
    """r − Σ len·r / Σ len within each group: the baseline of least variance if a gradient grows with length.

    Args:
        rewards: One reward a response.
        group: Index of each response's group, from 0 on.
        lengths: Tokens of each response, at least 1.
    """
    weights = lengths.to(rewards.dtype)
    return rewards - group_sum(weights * rewards, group) / group_sum(weights, group)
