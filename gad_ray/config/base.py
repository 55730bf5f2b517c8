"""The base of every configuration model, and the types they share."""

from __future__ import annotations

from typing import Any, Literal, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Precision = Literal["float32", "bfloat16"]


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and does not coerce types."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class StageLength(StrictModel):
    """How long a stage or a part of one lasts: a number of steps, or of epochs over the training prompts."""

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


def unnamed_means(name: str) -> BeforeValidator:
    """For a union told apart by ``name``: settings that give none are those of the variant called so.

    A setting of the default variant can then be changed alone: ``critic.loss.margin=0.5``.
    """

    def with_name(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        settings = cast("dict[str, Any]", value)
        return settings if "name" in settings else {"name": name, **settings}

    return BeforeValidator(with_name)
