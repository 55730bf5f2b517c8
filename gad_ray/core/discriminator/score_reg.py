"""The penalty on large scores."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


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
    excess_teacher = F.relu(teacher.abs() - threshold).square().sum() / num_prompts
    excess_student = F.relu(student.abs() - threshold).square().sum() / num_responses
    return weight * (excess_teacher + excess_student)
