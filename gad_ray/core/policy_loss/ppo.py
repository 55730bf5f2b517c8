"""The clipped surrogate of PPO, per token (arXiv 1707.06347; asymmetric bounds: DAPO, 2503.14476)."""

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


class PpoLoss(TokenLoss):
    """Clipped ratio objective per token."""

    name: Literal["ppo"] = "ppo"
    clip_low: float = Field(default=0.2, gt=0.0, lt=1.0)
    clip_high: float = Field(default=0.2, gt=0.0)


@POLICY_LOSSES.register(PpoLoss)
def _loss_of(logprobs: Tensor, batch: LossBatch, settings: PpoLoss) -> tuple[Tensor, PolicyLossStats]:
    return ppo_loss(
        logprobs,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        num_tokens=batch.num_tokens,
        aggregate=settings.aggregate(batch),
        **batch.shared,
    )


def ppo_loss(
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
    """−min(ρA, clip(ρ, 1 − ε_low, 1 + ε_high)A) per token.

    Args:
        logprobs: log π of the response tokens (nats), with gradient.
        old_logprobs: log π_old of the same tokens.
        advantages: One advantage a response, shared by its tokens.
        mask: True on response tokens.
        clip_low: ε_low.
        clip_high: ε_high.
        num_tokens: Response tokens of the global batch: the denominator of the figures.
        weights: Importance weights of the tokens, detached; None: 1.
        aggregate: How token losses become one number; None: their mean over ``num_tokens``.

    Returns:
        The scalar loss and its figures.
    """
    import torch

    # Outside the mask the difference may be anything: 0 keeps the ratio, and its gradient, finite.
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = bounded_ratio(log_ratio)
    advantage = advantages[:, None]
    plain = ratio * advantage
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantage
    surrogate = torch.minimum(plain, clipped)
    if weights is not None:
        surrogate = surrogate * weights
    loss = -(aggregate or token_mean(num_tokens))(surrogate, mask)
    with torch.no_grad():
        stats = PolicyLossStats(
            pg_loss=loss.detach(),
            clip_fraction=((clipped < plain) & mask).sum() / num_tokens,
            max_ratio_gap=torch.where(mask, (ratio - 1.0).abs(), 0.0).amax(),
        )
    return loss, stats
