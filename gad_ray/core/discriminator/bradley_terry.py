"""The Bradley-Terry ranking loss of generative adversarial distillation (arXiv 2511.10643, eq. 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gad_ray.core.discriminator.base import DISCRIMINATORS, DiscriminatorSettings, PairScores
from gad_ray.core.discriminator.score_reg import score_penalty
from gad_ray.core.discriminator.stats import DiscriminatorStats
from gad_ray.core.discriminator.temperature import AdaptiveRange, AdaptiveTemperature, temperature_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_STD_FLOOR = 1e-4


class BradleyTerryLoss(DiscriminatorSettings):
    """softplus(−(d − margin)/τ) on the difference d of teacher's and student's score."""

    name: Literal["bradley_terry"] = "bradley_terry"
    margin: float = 0.0
    """Difference that the teacher's score should exceed the student's by."""

    batch_norm: bool = False
    """Normalise teacher and student scores by the mean and standard deviation over all pairs of the batch, a
    teacher's score counting once for each response to its prompt."""

    @property
    def needs_whole_batch(self) -> bool:
        """Whether a pair's loss depends on the other pairs' scores."""
        return self.batch_norm or isinstance(self.temperature, AdaptiveTemperature)


@DISCRIMINATORS.register(BradleyTerryLoss)
def _loss_of(scores: PairScores, settings: BradleyTerryLoss) -> tuple[Tensor, DiscriminatorStats]:
    return bradley_terry_loss(
        scores.teacher,
        scores.student,
        margin=settings.margin,
        batch_norm=settings.batch_norm,
        **scores.shared(settings),
    )


def bradley_terry_loss(
    teacher: Float[Tensor, " prompts"],
    student: Float[Tensor, " responses"],
    *,
    group: Int[Tensor, " responses"],
    temperature: float | AdaptiveRange,
    margin: float = 0.0,
    reg_threshold: float = 0.0,
    reg_weight: float = 0.0,
    batch_norm: bool = False,
    num_prompts: int | None = None,
    num_responses: int | None = None,
) -> tuple[Float[Tensor, ""], DiscriminatorStats]:
    """softplus(−(d − margin)/τ) over all pairs, plus w · mean relu(|s| − c)² on the raw scores of both sides.

    d = s_T − s_S is taken after batch normalisation, if that is on. The teacher's score of a prompt is
    shared by all responses of its group.

    Args:
        teacher: Raw float32 scores of the teacher's responses, one a prompt.
        student: Raw float32 scores of the student's responses.
        group: For each response, the index of its prompt in ``teacher``.
        temperature: τ > 0, or how it follows d: then give it the whole batch.
        margin: Difference below which a pair still counts as badly ranked.
        reg_threshold: c, the size up to which a score costs nothing.
        reg_weight: w of the penalty.
        batch_norm: Normalise both sides by the mean and (floored) standard deviation of the scores of all pairs.
            The teacher's score counts once for each response that it is compared with, as the field's code has
            it, so that both sides weigh the same: counted once a prompt, 8 responses to a prompt would stretch d
            from 2 to 3.2 where every teacher's score is 1 and every student's is −1. The statistics are those of
            this call: give it the whole batch.
        num_prompts: Global number of prompts, where this call sees a part of the batch.
        num_responses: Global number of responses, likewise.

    Returns:
        The scalar loss, normalised over the global batch, and its parts.
    """
    import torch
    import torch.nn.functional as F

    num_prompts = len(teacher) if num_prompts is None else num_prompts
    num_responses = len(student) if num_responses is None else num_responses
    mean, std = teacher.new_zeros(()), teacher.new_ones(())
    ranked_teacher, ranked_student = teacher, student
    if batch_norm:
        both = torch.cat([teacher[group], student])
        mean, std = both.mean(), both.std(correction=0).clamp_min(_STD_FLOOR)
        ranked_teacher, ranked_student = (teacher - mean) / std, (student - mean) / std
    difference = ranked_teacher[group] - ranked_student
    tau = temperature_of(temperature, difference)
    seen = (difference - margin) / tau
    rank = F.softplus(-seen).sum() / num_responses
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
        sigmoid=seen.detach().sigmoid().sum() / num_responses,
        temperature=torch.as_tensor(tau),
        batch_mean=mean.detach(),
        batch_std=std.detach(),
    )
    return rank + reg, stats
