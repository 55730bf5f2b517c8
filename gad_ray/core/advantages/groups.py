"""Sums over the groups of a batch."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def group_sum(
    values: Float[Tensor, " responses"], group: Int[Tensor, " responses"]
) -> Float[Tensor, " responses"]:
    """The sum of each value's group, beside every member."""
    num_groups = int(group.max()) + 1 if len(group) else 0
    return values.new_zeros(num_groups).index_add(0, group, values)[group]


def group_size(
    values: Float[Tensor, " responses"], group: Int[Tensor, " responses"]
) -> Float[Tensor, " responses"]:
    """The number of responses in each value's group, beside every member."""
    return group_sum(torch.ones_like(values), group)


def centred(
    rewards: Float[Tensor, " responses"], group: Int[Tensor, " responses"]
) -> Float[Tensor, " responses"]:
    """Rewards less their group's mean."""
    return rewards - group_sum(rewards, group) / group_size(rewards, group)
