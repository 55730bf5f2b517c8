"""The output head in chunks: log-probabilities of many tokens without all of their logits at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gad_ray.core.logprobs import token_logprobs

_CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**28}
"""Logits that are held at once: on a CPU 128 MiB in float32, 682 tokens of 49,152 words; a GPU needs larger products."""


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
    of_logits = _fused_token_logprobs() if hidden.is_cuda else token_logprobs

    def figures(states: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return of_logits(head(states), chosen, temperature=temperature, entropy_gradient=entropy_gradient)

    size = max(1, _CHUNK_ELEMENTS.get(hidden.device.type, 2**25) // words)
    if len(targets) <= size:
        return figures(hidden, targets)
    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    if torch.is_grad_enabled():
        parts = [checkpoint(figures, *chunk, use_reentrant=False) for chunk in chunks]
    else:
        parts = [figures(*chunk) for chunk in chunks]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


@cache
def _fused_token_logprobs() -> Callable[..., tuple[Tensor, Tensor]]:
    """:func:`token_logprobs` in a few kernels, which never write the logits in float32; itself where no compiler is."""
    fused = torch.compile(token_logprobs, dynamic=True)
    try:
        fused(
            torch.zeros(4, 8, device="cuda", dtype=torch.bfloat16),
            torch.zeros(4, dtype=torch.int64, device="cuda"),
        )
    except Exception as error:  # noqa: BLE001 (a compiler that is missing or broken shows in many ways)
        warnings.warn(f"log-probabilities are computed without fused kernels: {error}", stacklevel=2)
        return token_logprobs
    return fused
