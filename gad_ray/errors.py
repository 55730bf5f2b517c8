"""Errors a person can act on: what happened, where, and what mends it.

Every error that GAD-Ray raises on purpose is a :class:`GadError`. They are picklable, so that an error
raised inside a Ray actor arrives in the driver with its parts intact.
"""

from __future__ import annotations

import re
from typing import Any

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # what turns or breaks lines
    "\ud800-\udfff]"  # lone surrogates, which no terminal can be given
)


def printable(text: str) -> str:
    """A text that is safe to print: characters that steer a terminal are shown as escapes.

    Text from elsewhere (an endpoint's error, a model's answer) goes through here where it is printed; what is kept in
    files stays as it came.
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


class GadError(Exception):
    """Base of all errors that GAD-Ray raises on purpose.

    Args:
        message: What happened, naming the offending field or object and its value.
        where: File, line, key, actor or step in which it happened.
        hint: What the reader can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.hint:
            parts.append(f"  → {self.hint}")
        # Messages quote what endpoints and files hold, and this is what is printed of them.
        return printable("\n".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.where, self.hint)


def _rebuild(cls: type[GadError], message: str, where: str | None, hint: str | None) -> GadError:
    return cls(message, where=where, hint=hint)


class ConfigError(GadError):
    """A config file, a recipe or a ``key=value`` override that cannot be used."""

    exit_code = 2


class DataError(GadError):
    """Training or evaluation data that cannot be used."""

    exit_code = 2


class ModelError(GadError):
    """A model or tokenizer that cannot be found, loaded or used for its role."""

    exit_code = 2


class RolloutError(GadError):
    """A generation that failed for good."""


class SyncError(GadError):
    """New policy weights that did not take effect in a rollout engine."""


class CheckpointError(GadError):
    """A checkpoint that is missing, incomplete, corrupt or made by another configuration."""


class DeadlineError(GadError):
    """Something that was waited for did not come in time."""


class ActorDiedError(GadError):
    """A Ray actor is gone; the message carries the cause and the tail of its log."""


class HealthError(GadError):
    """A run that was stopped, in good order, because a critical health rule began to hold."""

    exit_code = 3


class TrainingError(GadError):
    """Training cannot go on, e.g. too many non-finite losses in a row."""
