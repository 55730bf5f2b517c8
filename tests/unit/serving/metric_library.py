"""Stands in for ``ray.util.metrics``: remembers what was counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any


class _Metric:
    def __init__(self, library: MetricLibrary, name: str, tag_keys: Sequence[str]) -> None:
        self._library, self._name, self._tag_keys = library, name, set(tag_keys)

    def _note(self, value: float, tags: dict[str, str] | None) -> tuple[str, tuple[str, ...]]:
        given = tags or {}
        assert set(given) == self._tag_keys, f"{self._name} is labelled {given}"
        self._library.values[self._name].append((value, given))
        return self._name, tuple(given.values())

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        assert value > 0
        self._library.totals[self._note(value, tags)] += value

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._library.totals[self._note(value, tags)] = value

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._note(value, tags)


class MetricLibrary:
    """``totals``: what counters and gauges stand at; ``values``: everything that was noted."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
        self.values: dict[str, list[tuple[float, dict[str, str]]]] = defaultdict(list)

    def _make(self, name: str, description: str, tag_keys: Sequence[str] = (), **more: Any) -> _Metric:
        assert description
        assert name not in self.values
        return _Metric(self, name, tag_keys)

    Counter = Gauge = Histogram = _make
