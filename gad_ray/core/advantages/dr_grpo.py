"""Group-relative advantages without division (Dr. GRPO, arXiv 2503.20783)."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from gad_ray.core.advantages.groups import centred


def dr_grpo_advantages(
    rewards: Float[Tensor, " responses"], *, group: Int[Tensor, " responses"]
) -> Float[Tensor, " responses"]:
    """r − mean within each group.

    Dividing by the standard deviation favours prompts whose rewards hardly differ, and dividing a response's
    loss by its length favours long wrong ones; this goes with a constant divisor in place of the length.

    Args:
        rewards: One reward a response.
        group: Index of each response's group, from 0 on.
    """
    return centred(rewards, group)
