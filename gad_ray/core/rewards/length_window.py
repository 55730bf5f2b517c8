"""A penalty for responses that are too long or too short (soft overlong punishment: DAPO, arXiv 2503.14476)."""

from __future__ import annotations


def length_window(length: int, *, max_tokens: int, soft_tokens: int = 0, min_tokens: int = 0) -> float:
    """0 within the window, down to −1 outside it.

    Args:
        length: Tokens of the response, without the end of turn.
        max_tokens: Length above which the penalty is −1.
        soft_tokens: Tokens before ``max_tokens`` over which it grows evenly from 0 to −1.
        min_tokens: Length below which it grows evenly from 0 to −1 at an empty response.
    """
    if length > max_tokens:
        return -1.0
    if length < min_tokens:
        return length / min_tokens - 1.0
    free = max_tokens - soft_tokens
    return (free - length) / soft_tokens if length > free else 0.0
