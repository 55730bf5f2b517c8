"""In which order, and which, prompts are drawn."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gad_ray.config.length import StageLength
from gad_ray.strict_model import StrictModel


class DifficultyCurriculum(StrictModel):
    """Every epoch in the order of a number that comes with the rows, or only rows within bounds of it.

    Held-out prompts are not concerned.
    """

    name: Literal["difficulty"] = "difficulty"
    column: str = Field(default="difficulty", min_length=1)
    """Field of the row, or key of its ``meta``, that holds the number."""

    order: Literal["ascending", "descending", "shuffled"] = "ascending"
    """Smallest number first, largest first, or as without a curriculum. Equal ones are shuffled."""

    min: float | None = None
    """Rows below are not trained on."""

    max: float | None = None
    """Rows above are not trained on."""

    missing: Literal["refuse", "quarantine"] = "refuse"
    """What to do with a row without such a number: refuse the run by name, or quarantine the row."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}: no prompt is within")
        if self.order == "shuffled" and self.min is None and self.max is None:
            raise ValueError("order 'shuffled' without min or max changes nothing: give a bound or an order")
        return self


class GapCurriculum(StrictModel):
    """Every epoch in the order of the critic's gap, the mean of s_T − s_S over the run's steps so far.

    The gap is the critic's as it was in each of those steps. Prompts that have none yet come first.
    """

    name: Literal["gap"] = "gap"
    order: Literal["ascending", "descending"] = "ascending"
    """``ascending``: first those on which the policy comes nearest to the teacher; ``descending``: farthest."""

    keep: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of all prompts, the first in that order, that an epoch consists of. A share, because scores mean
    something relative to each other only."""

    shuffle: bool = False
    """Draw those that are kept in random order."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.shuffle and self.keep == 1.0:
            raise ValueError("shuffle with keep = 1.0 changes nothing: keep fewer, or do not shuffle")
        return self


class SpreadCurriculum(StageLength):
    """At the adversarial stage's beginning only prompts whose rewards differed within their group, then all.

    What counts is each prompt's latest group, the warm-up's included; prompts without any are drawn too. In a
    step for which fewer than ``prompts_per_step`` prompts are left, all are drawn.
    """

    name: Literal["spread_first"] = "spread_first"

    @model_validator(mode="after")
    def _lasts_a_while(self) -> Self:
        if not (self.steps or self.epochs):
            raise ValueError("the phase has no length: give steps or epochs above 0")
        return self


CurriculumConfig = Annotated[
    DifficultyCurriculum | GapCurriculum | SpreadCurriculum, Field(discriminator="name")
]
"""Which prompts the game draws when; ``name`` says by what. Offline fits draw all of them in random order."""
