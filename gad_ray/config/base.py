"""Types that the configuration models share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from gad_ray.errors import ConfigError

Precision = Literal["float32", "bfloat16"]

PrecisionChoice = Literal["auto", "float32", "bfloat16"]
"""``auto``: what this machine is faster in (:mod:`gad_ray.auto`)."""


def _is_a_size(value: object) -> object:
    """Said of both kinds at once: a union would tell each one's fault."""
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError("take auto, or a whole number from 1 on")
    return value


SizeChoice = Annotated[int | Literal["auto"], BeforeValidator(_is_a_size)]
"""``auto``: as large as pays and fits on this machine (:mod:`gad_ray.auto`)."""


def resolved(choice: PrecisionChoice, *, key: str) -> Precision:
    """A precision that is no longer open.

    Raises:
        ConfigError: If it is ``auto`` still.
    """
    if choice == "auto":
        raise ConfigError(
            "the precision is still 'auto'",
            where=key,
            hint="settle it first: config = gad_ray.auto.resolve(config).config; or set float32 or bfloat16",
        )
    return choice


def settled(choice: SizeChoice, *, key: str) -> int:
    """A size that is no longer open.

    Raises:
        ConfigError: If it is ``auto`` still.
    """
    if choice == "auto":
        raise ConfigError(
            "the size is still 'auto'",
            where=key,
            hint="settle it first: config = gad_ray.auto.resolve(config).config; or set a number",
        )
    return choice
