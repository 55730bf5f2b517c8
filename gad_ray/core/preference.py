"""How often the teacher is preferred."""

from __future__ import annotations

import numpy as np

from gad_ray.batch import Float32


def preference(teacher: Float32, student: Float32) -> float:
    """Share of pairs in which the teacher scores higher; a tie counts half, as equal text is a coin's toss.

    Args:
        teacher: [N] scores.
        student: [N] scores of the responses to the same prompts.
    """
    return float(np.mean((teacher > student) + 0.5 * (teacher == student)))
