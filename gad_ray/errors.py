"""Errors a person can act on: what happened, where, and what mends it.

Every error that GAD-Ray raises on purpose is a :class:`GadError`. They are picklable, so that an error
raised inside a Ray actor arrives in the driver with its parts intact.
"""

from __future__ import annotations

from typing import Any


class GadError(Exception):
    """Base of all errors that GAD-Ray raises on purpose.

    Args:
        message: What happened, naming the offending field or object and its value.
        where: File, line, key, actor or step in which it happened.
        mend: What the reader can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.mend:
            parts.append(f"  → {self.mend}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.where, self.mend)


def _rebuild(cls: type[GadError], message: str, where: str | None, mend: str | None) -> GadError:
    return cls(message, where=where, mend=mend)


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
