"""What every container does with its own promises."""

from __future__ import annotations


def check(condition: bool, message: str) -> None:
    """Hold a container to its promise.

    Raises:
        ValueError: With the message, if it does not keep it.
    """
    if not condition:
        raise ValueError(message)
