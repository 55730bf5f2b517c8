"""Direct preference optimisation (Rafailov et al., arXiv 2305.18290, eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoStats:
    """Detached scalars; each is a share of a mean over all pairs of the global batch, so that shares add up."""

    loss: Tensor
    """Share of the loss."""
    chosen_reward: Tensor
    """Share of the mean implicit reward β · (log π − log π_ref) of the chosen responses."""
    rejected_reward: Tensor
    """The same of the rejected ones."""
    margin: Tensor
    """Share of the mean difference of the two."""
    accuracy: Tensor
    """Share of the pairs whose margin is positive; a margin of 0 counts half."""


def dpo_loss(
    chosen: Float[Tensor, " pairs"],
    *,
    rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    beta: float,
    label_smoothing: float = 0.0,
    num_pairs: int | None = None,
) -> tuple[Float[Tensor, ""], DpoStats]:
    """−(1−ε)·log σ(m) − ε·log σ(−m), with the margin m = β·((c − c_ref) − (r − r_ref)).

    ε = 0 is the paper's loss; ε > 0 takes that share of the pairs to be labelled the wrong way round.

    Args:
        chosen: c, log π of each pair's chosen response (nats, summed over its tokens), with gradient.
        rejected: r, the same of the rejected responses.
        reference_chosen: c_ref, log π of the chosen responses under the frozen reference.
        reference_rejected: r_ref, likewise of the rejected ones.
        beta: β > 0, the scale of the log-ratios.
        label_smoothing: ε in [0, 1/2).
        num_pairs: Pairs of the global batch, where this call sees a part of it.

    Returns:
        The scalar loss, a share of the mean over ``num_pairs``, and its figures.
    """
    num_pairs = len(chosen) if num_pairs is None else num_pairs
    # Sums over thousands of tokens, and a margin of a fraction of a nat between them: float32 holds 10,000 to 0.001.
    chosen_reward = beta * (chosen.double() - reference_chosen.double())
    rejected_reward = beta * (rejected.double() - reference_rejected.double())
    margin = (chosen_reward - rejected_reward).float()
    losses = (1.0 - label_smoothing) * F.softplus(-margin) + label_smoothing * F.softplus(margin)
    loss = losses.sum() / num_pairs
    with torch.no_grad():
        right = (margin > 0.0).float() + 0.5 * (margin == 0.0).float()
        stats = DpoStats(
            loss=loss.detach(),
            chosen_reward=chosen_reward.float().sum() / num_pairs,
            rejected_reward=rejected_reward.float().sum() / num_pairs,
            margin=margin.sum() / num_pairs,
            accuracy=right.sum() / num_pairs,
        )
    return loss, stats
