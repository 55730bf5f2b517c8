"""The base of every settings model."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and does not coerce types."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class Variant(StrictModel):
    """Settings of one of several variants; each variant adds the ``name`` by which a configuration chooses it."""

    @property
    def variant(self) -> str:
        """That name."""
        return str(self.model_dump()["name"])


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
