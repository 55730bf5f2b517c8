"""Correction for rollout and trainer being different programs (truncated importance sampling)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def truncated_weights(
    old_logprobs: Float[Tensor, "batch seq"],
    *,
    rollout_logprobs: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    cap: float,
) -> Float[Tensor, "batch seq"]:
    """min(π_old / π_rollout, cap) per token, detached; 1 outside the mask."""
    gap = torch.where(mask, old_logprobs - rollout_logprobs, 0.0).detach()
    return gap.exp().clamp_max(cap)
