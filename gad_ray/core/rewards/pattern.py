"""A reward for text of a required form."""

from __future__ import annotations

import re


def required_pattern(text: str, *, regex: str) -> float:
    """1 if the regular expression is found in the text, else 0."""
    return 1.0 if re.search(regex, text) else 0.0
