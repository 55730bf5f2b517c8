"""How the losses of tokens become one number: always over the global batch.

Each function gives a micro-batch's share, so that the shares of all micro-batches and ranks add up to the
value for the whole batch, in whatever way it was split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class Aggregate(Protocol):
    """(values of tokens, mask) → their share of the global value; values outside the mask count for nothing."""

    def __call__(
        self, values: Float[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"], /
    ) -> Float[Tensor, ""]:
        """The share of these tokens."""
        ...


def token_mean(num_tokens: int) -> Aggregate:
    """The mean over tokens: every token weighs the same, long responses weigh more.

    Args:
        num_tokens: Response tokens of the global batch.
    """
    return lambda values, mask: _kept(values, mask).sum() / num_tokens


def sequence_mean(num_sequences: int) -> Aggregate:
    """The mean over responses of their token means: every response weighs the same.

    Args:
        num_sequences: Responses of the global batch.
    """
    return lambda values, mask: (_kept(values, mask).sum(-1) / mask.sum(-1)).sum() / num_sequences


def constant_divisor(num_sequences: int, length: int) -> Aggregate:
    """The sum over tokens divided by responses × a constant: every token weighs the same in every batch.

    Args:
        num_sequences: Responses of the global batch.
        length: What stands for the length of every response.
    """
    return lambda values, mask: _kept(values, mask).sum() / (num_sequences * length)


def _kept(values: Tensor, mask: Tensor) -> Tensor:
    """The values, 0 outside the mask: a product would let through what is not finite there."""
    import torch

    return torch.where(mask, values, 0.0)
