"""Seconds of a step's parts."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from gad_ray.batch import Metrics


class Stopwatch:
    """Adds up the wall time of a step's parts, from when it is made.

    Attributes:
        parts: ``timing_s/*`` of the parts, without the whole step's.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.parts: Metrics = {}

    @contextmanager
    def __call__(self, part: str) -> Generator[None]:
        """Time a part; of several of one name, their sum."""
        started = time.perf_counter()
        yield
        self.add({f"timing_s/{part}": time.perf_counter() - started})

    def add(self, timing: Mapping[str, float]) -> None:
        """Add parts that were timed elsewhere."""
        for name, seconds in timing.items():
            self.parts[name] = self.parts.get(name, 0.0) + seconds

    def cap(self, part: str, seconds: float) -> None:
        """Let a part be no longer than its actors worked on it; what the wait took beyond that is exchange."""
        name = f"timing_s/{part}"
        self.parts[name] = min(self.parts[name], seconds)

    def timing(self) -> Metrics:
        """``timing_s/*``, the whole step's so far among them, and as exchange what no part of it took."""
        whole = time.perf_counter() - self._started
        rest = max(0.0, whole - sum(self.parts.values()))
        return {**self.parts, "timing_s/exchange": rest, "timing_s/step": whole}
