"""The base of every configuration model, and the types they share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

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
