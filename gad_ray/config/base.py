"""The base of every configuration model, and the types they share."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict

from gad_ray.errors import ConfigError

Precision = Literal["float32", "bfloat16"]

PrecisionChoice = Literal["auto", "float32", "bfloat16"]
"""``auto``: what this machine is faster in (:mod:`gad_ray.precision`)."""


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and does not coerce types."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


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


def resolved(choice: PrecisionChoice, *, key: str) -> Precision:
    """A precision that is no longer open.

    Raises:
        ConfigError: If it is ``auto`` still.
    """
    if choice == "auto":
        raise ConfigError(
            "the precision is still 'auto'",
            where=key,
            mend="settle it first: config = gad_ray.precision.resolve_precision(config).config; "
            "or set float32 or bfloat16",
        )
    return choice
