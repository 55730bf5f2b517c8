"""Log-probabilities and entropy of given tokens, in float32 whatever the logits' dtype."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def token_logprobs(
    logits: Float[Tensor, "tokens vocab"],
    targets: Int[Tensor, " tokens"],
    *,
    entropy_gradient: bool = False,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """log softmax(logits)[target] with gradient, and the entropy of the distribution, without unless asked for.

    Args:
        logits: Unprocessed logits: before temperature, top-p and penalties.
        targets: Token ids.
        entropy_gradient: Whether the entropy carries its gradient, which keeps a second [tokens, vocab] tensor.

    Returns:
        float32 log-probabilities and float32 entropies, both in nats.
    """
    logits = logits.float()
    normaliser = torch.logsumexp(logits, dim=-1)
    chosen = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        probabilities = torch.softmax(logits, dim=-1)
        entropy = normaliser - (probabilities * logits).sum(-1)
    return chosen, entropy
