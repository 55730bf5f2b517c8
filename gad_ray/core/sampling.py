"""From logits to sampled tokens: repetition penalty, temperature, nucleus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class SamplingKnobs(Protocol):
    """What changes the distribution."""

    @property
    def temperature(self) -> float:
        """Divides the logits; 0 is greedy."""
        ...

    @property
    def top_p(self) -> float:
        """Probability mass of the nucleus."""
        ...

    @property
    def repetition_penalty(self) -> float:
        """Divides the logits of tokens that have occurred."""
        ...


def processed_logits(
    logits: Float[Tensor, "batch vocab"], *, seen: Bool[Tensor, "batch vocab"], settings: SamplingKnobs
) -> Float[Tensor, "batch vocab"]:
    """Penalty, then temperature, then nucleus: the order in which vLLM applies them.

    Args:
        logits: float32 logits.
        seen: True on tokens that occur in the prompt or the response so far.
        settings: Temperature 0 (greedy) leaves scale and nucleus alone.
    """
    if settings.repetition_penalty != 1.0:
        penalty = settings.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if settings.temperature == 0.0:
        return logits
    logits = logits / settings.temperature
    if settings.top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        # The token that crosses the mass is kept, so that one always remains.
        dropped = torch.zeros_like(seen).scatter(-1, order, before >= settings.top_p)
        logits = logits.masked_fill(dropped, float("-inf"))
    return logits


def sample_token(
    logits: Float[Tensor, "batch vocab"], *, greedy: bool, generators: Sequence[torch.Generator]
) -> Int[Tensor, " batch"]:
    """One token a row, each row from its own generator, so that its neighbours do not change it."""
    if greedy:
        return logits.argmax(-1)
    # Gumbel-max in its exponential form: argmax p / e with e ~ Exp(1).
    noise = torch.stack(
        [torch.empty_like(row).exponential_(generator=g) for row, g in zip(logits, generators, strict=True)]
    )
    return (logits.softmax(-1) / noise).argmax(-1)
