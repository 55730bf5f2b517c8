"""How long something lasts, in steps or epochs."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from gad_ray.strict_model import StrictModel


class StageLength(StrictModel):
    """How long a stage lasts: a number of steps, or of epochs over the training prompts."""

    steps: int | None = Field(default=None, ge=0)
    """Steps; each takes ``prompts_per_step`` prompts."""

    epochs: float | None = Field(default=None, ge=0.0)
    """Epochs; rounded to whole steps."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self

    def in_steps(self, *, num_prompts: int, prompts_per_step: int) -> int:
        """Length in steps for a data set of ``num_prompts`` training prompts."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return round(self.epochs * num_prompts / prompts_per_step)
