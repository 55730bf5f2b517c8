"""How figures are written in the tables of the measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Table = list[list[str]]
"""Rows of text, the head first."""

NONE = "–"


def times(latency: Mapping[str, Any]) -> list[str]:
    """Percentiles and the longest, in ms."""
    return [number(latency[name]) for name in ("p50", "p90", "p99", "max")]


def share(spread: Mapping[str, float]) -> str:
    """A median with its ends."""
    return f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"


def number(value: float | None) -> str:
    """A whole number, or that there is none."""
    return NONE if value is None else f"{value:.0f}"
