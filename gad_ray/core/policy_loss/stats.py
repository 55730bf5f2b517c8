"""What every policy objective reports about one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLossStats:
    """Detached scalars; each is a share of a mean over the global batch, so that shares add up."""

    pg_loss: Tensor
    """Share of the policy-gradient loss."""
    clip_fraction: Tensor
    """Share of units (tokens or sequences) whose clipped branch was taken."""
    max_ratio_gap: Tensor
    """max |ρ − 1| over the masked tokens of this call; not a share."""
