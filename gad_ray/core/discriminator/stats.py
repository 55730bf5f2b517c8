"""What every loss of the critic tells besides its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscriminatorStats:
    """Figures of one call, detached; sums where a mean over the global batch is to be made of them."""

    rank: Tensor
    """Share of the loss that tells the two sides apart."""
    reg: Tensor
    """Share of the score penalty, already weighted."""
    sigmoid: Tensor
    """Share of the mean sigmoid that the loss sees: near 1 it is saturated."""
    temperature: Tensor
    """τ that the scores were divided by."""
    batch_mean: Tensor
    """Mean that the scores were normalised by; 0 without batch normalisation."""
    batch_std: Tensor
    """Standard deviation that the scores were normalised by; 1 without batch normalisation."""
