"""The penalty on large scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gad_ray.strict_model import StrictModel

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class ScoreReg(StrictModel):
    """Penalty w · mean relu(|s| − c)² on raw scores of both sides."""

    threshold: float = Field(default=3.0, ge=0.0)
    """c: scores up to this size cost nothing."""

    weight: float = Field(default=0.01, ge=0.0)
    """w: weight of the penalty; 0 turns it off."""


def score_penalty(
    teacher: Float[Tensor, " prompts"],
    student: Float[Tensor, " responses"],
    *,
    threshold: float,
    weight: float,
    num_prompts: int,
    num_responses: int,
) -> Float[Tensor, ""]:
    """w · (mean relu(|s_T| − c)² + mean relu(|s_S| − c)²) on raw scores.

    Args:
        teacher: Raw float32 scores of the teacher's responses.
        student: Raw float32 scores of the student's responses.
        threshold: c, the size up to which a score costs nothing.
        weight: w.
        num_prompts: Global number of teacher scores, the first mean's divisor.
        num_responses: Global number of student scores, the second's.
    """
    import torch.nn.functional as F

    excess_teacher = F.relu(teacher.abs() - threshold).square().sum() / num_prompts
    excess_student = F.relu(student.abs() - threshold).square().sum() / num_responses
    return weight * (excess_teacher + excess_student)
