"""Log-probabilities and entropy of given tokens, in float32 whatever the logits' dtype."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
