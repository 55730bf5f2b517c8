"""A reward for text that is JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast


def parsed_json(text: str, *, required_keys: Sequence[str] = ()) -> float:
    """1 if the whole text, blanks around it aside, is JSON by the standard, else 0.

    Args:
        text: The response.
        required_keys: If there are any, the text must be an object that has them.
    """
    try:
        value: object = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    if not required_keys:
        return 1.0
    return (
        1.0
        if isinstance(value, dict) and set(required_keys) <= cast("dict[str, object]", value).keys()
        else 0.0
    )


def _refuse(constant: str) -> float:
    """Python reads NaN and Infinity, which are no JSON."""
    raise ValueError(constant)
