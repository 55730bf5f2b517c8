"""Corrections for rollout and trainer being different programs: truncated weights, or rejection."""

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


def rejected_weights(
    old_logprobs: Float[Tensor, "batch seq"],
    *,
    rollout_logprobs: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    cap: float,
    by_sequence: bool,
) -> Float[Tensor, "batch seq"]:
    """π_old / π_rollout where it is at most ``cap``, and 0 above it; detached, 1 outside the mask.

    Args:
        old_logprobs: log π_old of the response tokens (nats), by the trainer.
        rollout_logprobs: The same by the rollout engine.
        mask: True on response tokens; at least one in every row.
        cap: Largest weight that is kept.
        by_sequence: Weigh all tokens of a response by the geometric mean of their ratios, and reject them
            together.
    """
    gap = torch.where(mask, old_logprobs - rollout_logprobs, 0.0).detach()
    if by_sequence:
        gap = torch.where(mask, (gap.sum(-1) / mask.sum(-1))[:, None], 0.0)
    ratio = gap.exp()
    return torch.where(ratio <= cap, ratio, 0.0)
