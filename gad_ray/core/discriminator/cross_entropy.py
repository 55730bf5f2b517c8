"""The discriminator of generative adversarial networks: each response is judged alone, none against another.

An ablation of generative adversarial distillation (arXiv 2511.10643).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gad_ray.core.discriminator.base import DISCRIMINATORS, DiscriminatorSettings, PairScores
from gad_ray.core.discriminator.score_reg import score_penalty
from gad_ray.core.discriminator.stats import DiscriminatorStats
from gad_ray.core.discriminator.temperature import AdaptiveRange, temperature_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


class CrossEntropyLoss(DiscriminatorSettings):
    """−log σ(s_T/τ) over the teacher's responses − log(1 − σ(s_S/τ)) over the student's: each judged alone."""

    name: Literal["cross_entropy"] = "cross_entropy"


@DISCRIMINATORS.register(CrossEntropyLoss)
def _loss_of(scores: PairScores, settings: CrossEntropyLoss) -> tuple[Tensor, DiscriminatorStats]:
    return cross_entropy_loss(scores.teacher, scores.student, **scores.shared(settings))


def cross_entropy_loss(
    teacher: Float[Tensor, " prompts"],
    student: Float[Tensor, " responses"],
    *,
    group: Int[Tensor, " responses"],
    temperature: float | AdaptiveRange,
    reg_threshold: float = 0.0,
    reg_weight: float = 0.0,
    num_prompts: int | None = None,
    num_responses: int | None = None,
) -> tuple[Float[Tensor, ""], DiscriminatorStats]:
    """mean −log σ(s_T/τ) + mean −log(1 − σ(s_S/τ)), plus the penalty on large scores.

    Each side has a mean of its own, so that the number of responses to a prompt does not weigh in.

    Args:
        teacher: Raw float32 scores of the teacher's responses, one a prompt.
        student: Raw float32 scores of the student's responses.
        group: For each response, the index of its prompt in ``teacher``.
        temperature: τ > 0, or how it follows the differences of the pairs: then give it the whole batch.
        reg_threshold: c, the size up to which a score costs nothing.
        reg_weight: w of the penalty.
        num_prompts: Global number of prompts, where this call sees a part of the batch.
        num_responses: Global number of responses, likewise.

    Returns:
        The scalar loss, normalised over the global batch, and its parts.
    """
    import torch
    import torch.nn.functional as F

    num_prompts = len(teacher) if num_prompts is None else num_prompts
    num_responses = len(student) if num_responses is None else num_responses
    tau = temperature_of(temperature, teacher[group] - student)
    # −log(1 − σ(x)) = softplus(x).
    rank = F.softplus(-teacher / tau).sum() / num_prompts + F.softplus(student / tau).sum() / num_responses
    reg = score_penalty(
        teacher,
        student,
        threshold=reg_threshold,
        weight=reg_weight,
        num_prompts=num_prompts,
        num_responses=num_responses,
    )
    stats = DiscriminatorStats(
        rank=rank.detach(),
        reg=reg.detach(),
        sigmoid=torch.cat([teacher, -student]).detach().div(tau).sigmoid().sum()
        / (num_prompts + num_responses),
        temperature=torch.as_tensor(tau),
        batch_mean=teacher.new_zeros(()),
        batch_std=teacher.new_ones(()),
    )
    return rank + reg, stats
