"""How often the teacher is preferred."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]


def preference(teacher: Scores, student: Scores) -> float:
    """Share of pairs in which the teacher scores higher; a tie counts half, as equal text is a coin's toss.

    Args:
        teacher: [N] scores.
        student: [N] scores of the responses to the same prompts.
    """
    return float(np.mean(wins(teacher, student)))


def wins(teacher: Scores, student: Scores) -> NDArray[np.float64]:
    """1 where the teacher scores higher, 0 where the student does, ½ for a tie."""
    return (teacher > student) + 0.5 * (teacher == student)


def preferred_probability(difference: float, *, temperature: float) -> float:
    """Probability that the first of two responses to one prompt is better, by Bradley and Terry.

    Args:
        difference: Its score minus the other's.
        temperature: τ of the loss that the critic was trained with.

    Returns:
        σ(difference/τ): 0.5 for equal scores, and the two orders' probabilities add up to 1.
    """
    return 0.5 * (1.0 + math.tanh(difference / (2.0 * temperature)))
