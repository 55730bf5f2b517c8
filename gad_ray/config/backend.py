"""How a model is trained on the hardware that is there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import SerializeAsAny, Tag

from gad_ray.registry import BY_NAME, IMPORTED, imported
from gad_ray.strict_model import Variant, unnamed_means


class BackendSettings(Variant):
    """The settings of a backend."""


class LocalBackendSettings(BackendSettings):
    """Every rank holds the whole model and all of its optimiser."""

    name: Literal["local"] = "local"


BackendConfig = Annotated[
    Annotated[LocalBackendSettings, Tag("local")]
    | Annotated[SerializeAsAny[BackendSettings], imported(BackendSettings), IMPORTED],
    BY_NAME,
    unnamed_means("local"),
]
"""Which backend; one of your own by ``name: module:Class`` (docs/extending/backend.md)."""
