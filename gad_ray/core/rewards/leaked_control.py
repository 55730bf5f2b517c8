"""A penalty for control text that belongs to a chat template or a transcript, not to an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

# <|im_end|>, <|eot_id|>, <|user|> …; Mistral's and Llama 2's brackets; Gemma's turns; DeepSeek's full-width bars.
_CONTROL = re.compile(
    r"<\|[^\s<>|]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<｜[^\s<>｜]{1,40}｜>"
)
_TIMESTAMP = re.compile(
    r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}"  # 2024-05-01 12:30
    r"|(?<![\w\])])[\[(]\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?[\])]"  # [00:12], (1:02:03), but no slice x[0:12]
)


def leaked_control(text: str, *, timestamps: bool = True, markers: Sequence[str] = ()) -> float:
    """−1 if the text spells out a control token of a chat template, a timestamp or a marker; else 0.

    Args:
        text: The response, decoded without the control tokens that the policy really sampled.
        timestamps: Whether dates with a time of day, and bracketed times, count.
        markers: Further texts that must not occur.
    """
    leaked = (
        control_token_in(text) is not None
        or (timestamps and timestamp_in(text) is not None)
        or any(marker in text for marker in markers)
    )
    return -1.0 if leaked else 0.0


def control_token_in(text: str) -> str | None:
    """The first control token of a chat template that a text spells out."""
    found = _CONTROL.search(text)
    return found.group() if found else None


def timestamp_in(text: str) -> str | None:
    """The first date with a time of day, or bracketed time, in a text."""
    found = _TIMESTAMP.search(text)
    return found.group() if found else None
