"""A loss of the critic of one's own: the hinge. See docs/extending/critic_loss.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gad_ray.core.discriminator import DISCRIMINATORS, DiscriminatorSettings, DiscriminatorStats, PairScores

if TYPE_CHECKING:
    from torch import Tensor


class HingeLoss(DiscriminatorSettings):
    """relu(margin − (s_T − s_S)/τ): pairs that are far enough apart cost nothing."""

    name: str = "examples.extending.hinge_loss:HingeLoss"
    margin: float = Field(default=1.0, gt=0.0)
    """Difference, in units of τ, from which on a pair costs nothing."""


@DISCRIMINATORS.register(HingeLoss)
def hinge_loss(scores: PairScores, settings: HingeLoss) -> tuple[Tensor, DiscriminatorStats]:
    """relu(margin − d/τ), its mean over the responses of the whole batch."""
    import torch

    assert isinstance(scores.temperature, float), "it takes a fixed temperature"
    seen = (scores.teacher[scores.group] - scores.student) / scores.temperature
    loss = (settings.margin - seen).clamp(min=0.0).sum() / scores.num_responses
    nothing = loss.new_zeros(()).detach()
    stats = DiscriminatorStats(
        rank=loss.detach(),
        reg=nothing,
        sigmoid=seen.detach().sigmoid().sum() / scores.num_responses,
        temperature=torch.as_tensor(scores.temperature),
        batch_mean=nothing,
        batch_std=nothing + 1.0,
    )
    return loss, stats
