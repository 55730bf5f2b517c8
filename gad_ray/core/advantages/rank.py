"""Advantages from the order of rewards alone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gad_ray.core.advantages.groups import group_size


def rank_advantages(
    rewards: Float[Tensor, " responses"], *, group: Int[Tensor, " responses"]
) -> Float[Tensor, " responses"]:
    """1 − 2·rank/(n − 1) within each group, rank 0 being the highest reward; equal rewards share their mean rank.

    Between 1 and −1, and 0 where all are equal or alone.

    Args:
        rewards: One reward a response.
        group: Index of each response's group, from 0 on.
    """
    advantages = torch.zeros_like(rewards)
    for members in (torch.nonzero(group == g).squeeze(-1) for g in group.unique()):
        own = rewards[members]
        # Those below less those above: (n − 1) − 2·rank, with ties at their mean rank.
        balance = torch.sign(own[:, None] - own[None, :]).sum(-1)
        advantages[members] = balance
    return advantages / (group_size(rewards, group) - 1).clamp_min(1)
