"""The plain policy gradient (Williams, 1992)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gad_ray.core.policy_loss.aggregation import Aggregate, token_mean
from gad_ray.core.policy_loss.base import POLICY_LOSSES, LossBatch, TokenLoss
from gad_ray.core.policy_loss.ratio import bounded_ratio
from gad_ray.core.policy_loss.stats import PolicyLossStats

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class ReinforceLoss(TokenLoss):
    """−A·log π: exact for fresh samples; later mini-batches and epochs are not corrected for the policy's moves.

    Stale samples need ``importance``.
    """

    name: Literal["reinforce"] = "reinforce"

    @property
    def corrects_for_moves(self) -> bool:
        """It has no ratio."""
        return False


@POLICY_LOSSES.register(ReinforceLoss)
def _loss_of(logprobs: Tensor, batch: LossBatch, settings: ReinforceLoss) -> tuple[Tensor, PolicyLossStats]:
    return reinforce_loss(
        logprobs, num_tokens=batch.num_tokens, aggregate=settings.aggregate(batch), **batch.shared
    )


def reinforce_loss(
    logprobs: Float[Tensor, "batch seq"],
    *,
    old_logprobs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch seq"],
    num_tokens: int,
    weights: Float[Tensor, "batch seq"] | None = None,
    aggregate: Aggregate | None = None,
) -> tuple[Float[Tensor, ""], PolicyLossStats]:
    """−A·log π: exact for samples of the policy itself; nothing corrects for its moves since.

    Args:
        logprobs: log π of the response tokens (nats), with gradient.
        old_logprobs: log π_old of the same tokens, for the figures alone.
        advantages: One advantage a response, shared by its tokens.
        mask: True on response tokens.
        num_tokens: Response tokens of the global batch: the denominator of the token mean.
        weights: Importance weights of the tokens, detached; None: 1.
        aggregate: How token losses become one number; None: their mean over ``num_tokens``.

    Returns:
        The scalar loss and its figures; nothing is ever clipped.
    """
    import torch

    surrogate = advantages[:, None] * logprobs
    if weights is not None:
        surrogate = surrogate * weights
    loss = -(aggregate or token_mean(num_tokens))(surrogate, mask)
    with torch.no_grad():
        gap = bounded_ratio(torch.where(mask, logprobs - old_logprobs, 0.0)) - 1.0
        stats = PolicyLossStats(
            pg_loss=loss.detach(), clip_fraction=torch.zeros_like(loss), max_ratio_gap=gap.abs().amax()
        )
    return loss, stats
