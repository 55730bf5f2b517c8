"""What the poolings share: their settings, what they are computed of, the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gad_ray.registry import Registry
from gad_ray.strict_model import Variant

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class PoolingSettings(Variant):
    """The settings of a way from the values of a response's tokens to its score."""

    def described(self, updates: int) -> str:
        """All that scores depend on, as text: for the critic's fingerprint.

        Args:
            updates: Optimiser steps that the critic has taken.
        """
        del updates
        return self.model_dump_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenValues:
    """The rows of a forward pass, as a pooling is computed of them.

    Attributes:
        values: float32 value of every token; anything outside the mask.
        mask: True on the tokens that are scored; at least one in every row.
        updates: Optimiser steps that the critic has taken.
    """

    values: Float[Tensor, "batch seq"]
    mask: Bool[Tensor, "batch seq"]
    updates: int


POOLINGS: Registry[PoolingSettings, Callable[[TokenValues, Any], Float[Tensor, " batch"]]] = Registry(
    "pooling"
)
"""Settings → (token values, settings) → [batch] float32 scores."""
