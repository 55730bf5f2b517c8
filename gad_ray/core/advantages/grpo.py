"""Group-relative advantages (GRPO, arXiv 2402.03300)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def grpo_advantages(
    rewards: Float[Tensor, " responses"],
    *,
    group: Int[Tensor, " responses"],
    std_floor: float,
    clip: float | None = None,
) -> Float[Tensor, " responses"]:
    """(r − mean) / max(std, floor) within each group, clamped to ± ``clip``.

    The standard deviation is the sample's (n − 1), as in the paper's implementation. A group of one has
    no spread: its advantage is 0.

    Args:
        rewards: One reward a response.
        group: Index of each response's group, from 0 on.
        std_floor: Smallest divisor, > 0.
        clip: Largest size of an advantage, or None.
    """
    if len(rewards) == 0:
        return rewards
    num_groups = int(group.max()) + 1
    ones = torch.ones_like(rewards)
    count = rewards.new_zeros(num_groups).index_add(0, group, ones)
    mean = rewards.new_zeros(num_groups).index_add(0, group, rewards) / count.clamp_min(1)
    centred = rewards - mean[group]
    squares = rewards.new_zeros(num_groups).index_add(0, group, centred.square())
    std = (squares / (count - 1).clamp_min(1)).sqrt()
    advantages = centred / std.clamp_min(std_floor)[group]
    return advantages if clip is None else advantages.clamp(-clip, clip)
