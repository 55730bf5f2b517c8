"""A step's responses as references: one part from every rollout worker."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray import ObjectRef

from gad_ray.batch import RolloutBatch


@dataclass(frozen=True, slots=True)
class Rollouts:
    """References to the parts of a step's responses; an actor that needs them joins them.

    Attributes:
        parts: One for every rollout worker that had prompts; one alone once they are gathered.
    """

    parts: tuple[ObjectRef[RolloutBatch], ...]

    def __add__(self, more: Rollouts) -> Rollouts:
        return Rollouts(self.parts + more.parts)

    def join(self) -> RolloutBatch:
        """All responses, in one batch, in this process."""
        return RolloutBatch.concat(ray.get(list(self.parts)))
