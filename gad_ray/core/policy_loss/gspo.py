"""Group sequence policy optimisation: the ratio of a whole response (arXiv 2507.18071)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gad_ray.core.policy_loss.base import POLICY_LOSSES, LossBatch, PolicyLoss
from gad_ray.core.policy_loss.ratio import bounded_ratio
from gad_ray.core.policy_loss.stats import PolicyLossStats

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class GspoLoss(PolicyLoss):
    """Clipped sequence-level ratio exp(mean log ρ); one value per sequence."""

    name: Literal["gspo"] = "gspo"
    clip_low: float = Field(default=3e-4, gt=0.0, lt=1.0)
    clip_high: float = Field(default=4e-4, gt=0.0)


@POLICY_LOSSES.register(GspoLoss)
def _loss_of(logprobs: Tensor, batch: LossBatch, settings: GspoLoss) -> tuple[Tensor, PolicyLossStats]:
    return gspo_loss(
        logprobs,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        num_sequences=batch.num_sequences,
        **batch.shared,
    )


def gspo_loss(
    logprobs: Float[Tensor, "batch seq"],
    *,
    old_logprobs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch seq"],
    clip_low: float,
    clip_high: float,
    num_sequences: int,
    weights: Float[Tensor, "batch seq"] | None = None,
) -> tuple[Float[Tensor, ""], PolicyLossStats]:
    """−min(sA, clip(s)A) with s = exp(mean_t log ρ_t), mean over the sequences of the global batch.

    Args:
        logprobs: log π of the response tokens (nats), with gradient.
        old_logprobs: log π_old of the same tokens.
        advantages: One advantage a response.
        mask: True on response tokens; at least one in every row.
        clip_low: Lower bound 1 − clip_low of s.
        clip_high: Upper bound 1 + clip_high of s.
        num_sequences: Responses of the global batch: the denominator.
        weights: Importance weights of the tokens, detached; their mean over the response weighs it.

    Returns:
        The scalar loss and its figures.
    """
    import torch

    lengths = mask.sum(-1)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = bounded_ratio(log_ratio.sum(-1) / lengths)
    plain = ratio * advantages
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    surrogate = torch.minimum(plain, clipped)
    if weights is not None:
        surrogate = surrogate * (torch.where(mask, weights, 0.0).sum(-1) / lengths)
    loss = -surrogate.sum() / num_sequences
    with torch.no_grad():
        stats = PolicyLossStats(
            pg_loss=loss.detach(),
            clip_fraction=(clipped < plain).sum() / num_sequences,
            max_ratio_gap=(bounded_ratio(log_ratio) - 1.0).abs().amax(),
        )
    return loss, stats
