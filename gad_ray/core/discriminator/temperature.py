"""The temperature of the critic's loss: a number, or one that follows the batch."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveRange:
    """τ = clamp(a + b · mean |d|, lo, hi), with 0 < lo <= hi."""

    a: float
    b: float
    lo: float
    hi: float


def temperature_of(
    setting: float | AdaptiveRange, difference: Float[Tensor, " responses"]
) -> float | Float[Tensor, ""]:
    """τ for a batch of score differences, detached: the critic cannot lower its loss by moving τ.

    Args:
        setting: τ itself, or how it follows the differences.
        difference: d of every pair of the whole batch, as the loss sees it.
    """
    if not isinstance(setting, AdaptiveRange):
        return setting
    size = difference.detach().abs().mean()
    return (setting.a + setting.b * size).clamp(setting.lo, setting.hi)
