"""Log-probabilities and entropy of given tokens, in float32 whatever the logits' dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_CHUNK_ELEMENTS = 2**25
"""Logits that are held at once: 128 MiB in float32, 682 tokens of 49,152 words."""


def head_logprobs(
    hidden: Float[Tensor, "tokens hidden"],
    head: Callable[[Tensor], Tensor],
    targets: Int[Tensor, " tokens"],
    *,
    words: int,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """As :func:`token_logprobs` of ``head(hidden)``, never holding the logits of many tokens at once.

    Tokens go through the head in chunks, and the backward pass computes each chunk's logits anew: of more tokens than a
    chunk that is one more product with the head, in place of [tokens, words] in float32.

    Args:
        hidden: Last hidden states at the places that predict the targets.
        head: Hidden states → logits.
        targets: Token ids.
        words: Size of the vocabulary.
        temperature: As :func:`token_logprobs` takes it.
        entropy_gradient: Likewise.
    """

    def figures(states: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(
            head(states), chosen, temperature=temperature, entropy_gradient=entropy_gradient
        )

    size = max(1, _CHUNK_ELEMENTS // words)
    if len(targets) <= size:
        return figures(hidden, targets)
    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    if torch.is_grad_enabled():
        parts = [checkpoint(figures, *chunk, use_reentrant=False) for chunk in chunks]
    else:
        parts = [figures(*chunk) for chunk in chunks]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def token_logprobs(
    logits: Float[Tensor, "tokens vocab"],
    targets: Int[Tensor, " tokens"],
    *,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """log softmax(logits/T)[target] with gradient, and the distribution's entropy, without unless asked for.

    Args:
        logits: Logits as the model gives them.
        targets: Token ids.
        temperature: T > 0. Tokens that were sampled at T have to be judged at T: E ∇log π = 0, and with it the policy
            gradient, holds for the distribution that they come from alone.
        entropy_gradient: Whether the entropy carries its gradient, which keeps a second [tokens, vocab] tensor.

    Returns:
        float32 log-probabilities and float32 entropies, both in nats.

    Raises:
        ValueError: If ``temperature`` is not above 0.
    """
    if temperature <= 0.0:
        raise ValueError(
            f"temperature = {temperature}: greedy text has no distribution that it was sampled from"
        )
    logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    normaliser = torch.logsumexp(logits, dim=-1)
    chosen = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        probabilities = torch.softmax(logits, dim=-1)
        entropy = normaliser - (probabilities * logits).sum(-1)
    return chosen, entropy
