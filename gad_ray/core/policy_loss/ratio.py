"""Probability ratios that stay finite, and whose gradients do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_MAX_LOG_RATIO = 20.0


def bounded_ratio(log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """e^log ρ, held at e^20 above that, without gradient there.

    In float32 e^89 is infinite. A clipped objective would not take that branch, but its gradient of 0 times
    infinity is not a number, and one such token would cost the whole step.

    Args:
        log_ratio: log π − log π_old, nats.
    """
    return log_ratio.clamp(max=_MAX_LOG_RATIO).exp()
