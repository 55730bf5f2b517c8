"""The clipped importance weight as a constant factor (CISPO, arXiv 2506.13585)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gad_ray.core.policy_loss.aggregation import Aggregate, token_mean
from gad_ray.core.policy_loss.base import POLICY_LOSSES, LossBatch, TokenLoss
from gad_ray.core.policy_loss.ratio import bounded_ratio
from gad_ray.core.policy_loss.stats import PolicyLossStats

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class CispoLoss(TokenLoss):
    """−clip(ρ)·A·log π with the clipped ratio as a constant weight: no token loses its gradient."""

    name: Literal["cispo"] = "cispo"
    clip_low: float = Field(default=1.0, gt=0.0, le=1.0)
    """Lower bound 1 − clip_low of the weight; 1 bounds it by 0 alone, as in the paper."""

    clip_high: float = Field(default=0.2, gt=0.0)
    """Upper bound 1 + clip_high of the weight."""


@POLICY_LOSSES.register(CispoLoss)
def _loss_of(logprobs: Tensor, batch: LossBatch, settings: CispoLoss) -> tuple[Tensor, PolicyLossStats]:
    return cispo_loss(
        logprobs,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        num_tokens=batch.num_tokens,
        aggregate=settings.aggregate(batch),
        **batch.shared,
    )


def cispo_loss(
    logprobs: Float[Tensor, "batch seq"],
    *,
    old_logprobs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch seq"],
    clip_low: float,
    clip_high: float,
    num_tokens: int,
    weights: Float[Tensor, "batch seq"] | None = None,
    aggregate: Aggregate | None = None,
) -> tuple[Float[Tensor, ""], PolicyLossStats]:
    """−sg(clip(ρ, 1 − ε_low, 1 + ε_high))·A·log π: a clipped token keeps a gradient, unlike PPO's.

    Args:
        logprobs: log π of the response tokens (nats), with gradient.
        old_logprobs: log π_old of the same tokens.
        advantages: One advantage a response, shared by its tokens.
        mask: True on response tokens.
        clip_low: ε_low, at most 1.
        clip_high: ε_high.
        num_tokens: Response tokens of the global batch: the denominator of the figures.
        weights: Importance weights of the tokens, detached; None: 1.
        aggregate: How token losses become one number; None: their mean over ``num_tokens``.

    Returns:
        The scalar loss and its figures.
    """
    import torch

    ratio = bounded_ratio(torch.where(mask, logprobs.detach() - old_logprobs, 0.0))
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    surrogate = clipped * advantages[:, None] * logprobs
    if weights is not None:
        surrogate = surrogate * weights
    loss = -(aggregate or token_mean(num_tokens))(surrogate, mask)
    with torch.no_grad():
        stats = PolicyLossStats(
            pg_loss=loss.detach(),
            clip_fraction=((clipped != ratio) & mask).sum() / num_tokens,
            max_ratio_gap=torch.where(mask, (ratio - 1.0).abs(), 0.0).amax(),
        )
    return loss, stats
