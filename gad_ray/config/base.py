"""Types that the configuration models share."""

from __future__ import annotations

from typing import Literal

from gad_ray.errors import ConfigError

Precision = Literal["float32", "bfloat16"]

PrecisionChoice = Literal["auto", "float32", "bfloat16"]
"""``auto``: what this machine is faster in (:mod:`gad_ray.precision`)."""


def resolved(choice: PrecisionChoice, *, key: str) -> Precision:
    """A precision that is no longer open.

    Raises:
        ConfigError: If it is ``auto`` still.
    """
    if choice == "auto":
        raise ConfigError(
            "the precision is still 'auto'",
            where=key,
            hint="settle it first: config = gad_ray.precision.resolve_precision(config).config; "
            "or set float32 or bfloat16",
        )
    return choice
