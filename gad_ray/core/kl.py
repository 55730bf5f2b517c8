"""Estimators of the KL divergence to the reference (Schulman, "Approximating KL divergence", 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def k3_kl(
    logprobs: Float[Tensor, "batch seq"],
    *,
    ref_logprobs: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    num_tokens: int,
) -> Float[Tensor, ""]:
    """Mean of e^δ − δ − 1 with δ = log π_ref − log π: unbiased, never negative, of low variance.

    Args:
        logprobs: log π of the sampled tokens (nats), with gradient.
        ref_logprobs: log π_ref of the same tokens.
        mask: True on response tokens.
        num_tokens: Response tokens of the global batch: the denominator.
    """
    delta = torch.where(mask, ref_logprobs - logprobs, 0.0)
    return (delta.exp() - delta - 1.0).sum() / num_tokens
