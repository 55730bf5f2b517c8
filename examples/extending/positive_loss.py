"""A policy loss of one's own: learn from what was better than its group, and let the rest be. See docs/extending/policy_loss.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gad_ray.core.policy_loss import POLICY_LOSSES, LossBatch, PolicyLossStats, TokenLoss

if TYPE_CHECKING:
    from torch import Tensor


class PositiveLoss(TokenLoss):
    """−max(A, 0) · log π per token: weighted cross-entropy on the policy's better responses."""

    name: str = "examples.extending.positive_loss:PositiveLoss"

    @property
    def corrects_for_moves(self) -> bool:
        """It has no ratio to the policy that drew the samples."""
        return False


@POLICY_LOSSES.register(PositiveLoss)
def positive_loss(
    logprobs: Tensor, batch: LossBatch, settings: PositiveLoss
) -> tuple[Tensor, PolicyLossStats]:
    """−max(A, 0) · log π, by the configured aggregation."""
    surrogate = batch.advantages.clamp(min=0.0)[:, None] * logprobs
    if batch.weights is not None:
        surrogate = surrogate * batch.weights
    loss = -settings.aggregate(batch)(surrogate, batch.mask)
    gap = ((logprobs.detach() - batch.old_logprobs).exp() - 1.0).abs().masked_fill(~batch.mask, 0.0)
    stats = PolicyLossStats(
        pg_loss=loss.detach(), clip_fraction=loss.new_zeros(()).detach(), max_ratio_gap=gap.amax()
    )
    return loss, stats
