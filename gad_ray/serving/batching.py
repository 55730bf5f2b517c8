"""How requests are scored together, and who is told of it."""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from gad_ray.strict_model import StrictModel


class BatchSettings(StrictModel):
    """How rows are put together."""

    max_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one forward pass, with padding where there is any; a longer row goes alone. 1024 on a CPU and 4096 on
    a GPU when left out."""

    max_wait_s: float = Field(default=0.005, ge=0.0, le=10.0)
    """Longest wait for company before an idle critic begins; adapted to the traffic."""

    cache_tokens: int = Field(default=0, ge=0)
    """Scored tokens whose scores are kept for equal text; 0: no cache."""


class BatchWatcher(Protocol):
    """Is told what the batcher does."""

    def batch_done(self, *, rows: int, tokens: int, padded_tokens: int, budget: int, seconds: float) -> None:
        """A forward pass was made.

        Args:
            rows: Rows in it.
            tokens: Their tokens.
            padded_tokens: The same with padding.
            budget: Tokens that it could have had.
            seconds: How long it took.
        """
        ...

    def queue_changed(self, *, requests: int, tokens: int, seconds: float) -> None:
        """So much waits or is being scored, which takes so long at the pace of late."""
        ...

    def rows_spared(self, *, equal: int, cached: int) -> None:
        """So many rows needed no computation: equal to others in the round, or known from before."""
        ...
