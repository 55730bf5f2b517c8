"""Whether a score is that of the version which the answer names."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOLERANCE = 1e-4


@dataclass
class Checker:
    """Compares answers with the scores that each version gave offline, and counts.

    Attributes:
        offline: Fingerprint → score of every pair.
        tolerance: Largest difference that is rounding.
        answered: Answers by the fingerprint that they named.
        wrong: Answers with a score that is not that of the named version, or not one score for every pair.
        unknown: Answers that named a version which was never served.
        largest_gap: Of all scores that were right.
    """

    offline: Mapping[str, Sequence[float]]
    tolerance: float = TOLERANCE
    answered: Counter[str] = field(default_factory=Counter[str])
    wrong: int = 0
    unknown: int = 0
    largest_gap: float = 0.0

    def check(self, places: Sequence[int], fingerprint: str, scores: Sequence[float]) -> bool:
        """Count one answer.

        Args:
            places: The pairs that were asked about, in their order.
            fingerprint: The version that the answer names.
            scores: Its scores.

        Returns:
            Whether it is right.
        """
        self.answered[fingerprint] += 1
        wanted = self.offline.get(fingerprint)
        if wanted is None:
            self.unknown += 1
            return False
        gaps = [abs(score - wanted[place]) for score, place in zip(scores, places, strict=False)]
        # Written so that a score that is not a number is wrong.
        if len(scores) != len(places) or not all(gap <= self.tolerance for gap in gaps):
            self.wrong += 1
            return False
        self.largest_gap = max(self.largest_gap, *gaps)
        return True

    def separation(self) -> float:
        """The least by which two versions' scores of one pair differ: what a mixture would show as."""
        return min(
            abs(one - other)
            for first, second in itertools.combinations(self.offline.values(), 2)
            for one, other in zip(first, second, strict=True)
        )

    def figures(self) -> dict[str, Any]:
        """The counts."""
        return {
            "wrong": self.wrong,
            "unknown_version": self.unknown,
            "largest_gap": self.largest_gap,
            "answers_by_version": dict(self.answered),
        }
