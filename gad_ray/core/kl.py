"""Estimators of the KL divergence to the reference (Schulman, "Approximating KL divergence", 2020).

What an estimator's *value* estimates and what its *gradient* does are two things. With samples of the policy
itself, in the loss: E ∇k1 = 0, so that k1 holds nothing back; E ∇k2 = ∇KL(π‖π_ref); E ∇k3 = ∇KL(π_ref‖π), as
E_π[(1 − e^δ) ∇log π] = −E_ref[∇log π]. In the reward, where the value counts, k1 and k3 are unbiased and k2 is not.

π and π_ref are the distributions that the samples come from: both with logits divided by the sampling temperature. (With
the distributions at temperature 1 and samples at another, E ∇log π is not 0, and none of the above holds.)

In k3, δ is bounded from above by 20, because e^δ leaves float32 at 88.7: beyond the bound a token's value is that at
the bound, 4.85e8, and it has no gradient, where the true one would be as large and drown the batch. (verl bounds by
±20, and the result by ±10. Below, nothing overflows: −δ − 1 is exact there, and its gradient is what holds the
policy back, so both stay.)
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_MAX_DELTA = 20.0


def k1_kl(
    logprobs: Float[Tensor, "batch seq"],
    *,
    ref_logprobs: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    num_tokens: int,
) -> Float[Tensor, ""]:
    """Mean of −δ with δ = log π_ref − log π: unbiased, of either sign; its gradient has mean 0.

    Arguments as for :func:`k3_kl`.
    """
    return torch.where(mask, logprobs - ref_logprobs, 0.0).sum() / num_tokens


def k2_kl(
    logprobs: Float[Tensor, "batch seq"],
    *,
    ref_logprobs: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    num_tokens: int,
) -> Float[Tensor, ""]:
    """Mean of δ²/2 with δ = log π_ref − log π: biased, never negative; its gradient is that of KL(π‖π_ref).

    Arguments as for :func:`k3_kl`.
    """
    delta = torch.where(mask, ref_logprobs - logprobs, 0.0)
    return (delta.square() / 2.0).sum() / num_tokens


def k3_kl(
    logprobs: Float[Tensor, "batch seq"],
    *,
    ref_logprobs: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    num_tokens: int,
) -> Float[Tensor, ""]:
    """Mean of e^δ − δ − 1 with δ = min(log π_ref − log π, 20): unbiased below the bound, never negative.

    Args:
        logprobs: log π of the sampled tokens (nats), with gradient.
        ref_logprobs: log π_ref of the same tokens.
        mask: True on response tokens.
        num_tokens: Response tokens of the global batch: the denominator.
    """
    delta = torch.where(mask, ref_logprobs - logprobs, 0.0).clamp_max(_MAX_DELTA)
    return (delta.exp() - delta - 1.0).sum() / num_tokens


def adapted_coefficient(
    coefficient: float, *, kl: float, target: float, num_responses: int, horizon: int
) -> float:
    """The next KL coefficient: raised where the KL is above its target, lowered where below (arXiv 1909.08593).

    Args:
        coefficient: The present one.
        kl: Measured KL, in the unit of ``target``; what is not finite moves nothing.
        target: KL to hold.
        num_responses: Responses over which ``kl`` was measured.
        horizon: Responses in which the coefficient may change by a fifth.
    """
    if not math.isfinite(kl):
        return coefficient
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + error * min(1.0, num_responses / horizon))
