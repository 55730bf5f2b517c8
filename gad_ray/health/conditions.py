"""Conditions of health rules: small typed comparisons over windows of signals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from gad_ray.health.signals import Signal

Windows = Mapping[Signal, Sequence[float]]
"""Signal → its latest values; a signal that is not known over the whole window is left out."""


@dataclass(frozen=True, slots=True)
class Above:
    """Mean over the window > limit."""

    signal: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class Below:
    """Mean over the window < limit."""

    signal: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class Near:
    """|mean over the window − value| < tolerance."""

    signal: Signal
    value: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class GapAbove:
    """Mean of ``signal`` − mean of ``other`` > limit."""

    signal: Signal
    other: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class RatioAbove:
    """Mean of ``signal`` > limit × mean of ``other``."""

    signal: Signal
    other: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class VariationAbove:
    """Standard deviation over the window > limit × |mean|."""

    signal: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Condition, ...]


Condition = Above | Below | Near | GapAbove | RatioAbove | VariationAbove | AllOf | AnyOf


def holds(condition: Condition, windows: Windows) -> bool:
    """Whether a condition holds; what is not known does not."""
    match condition:
        case AllOf(parts):
            return all(holds(part, windows) for part in parts)
        case AnyOf(parts):
            return any(holds(part, windows) for part in parts)
        case _:
            if any(not windows.get(signal) for signal in signals_of(condition)):
                return False
            return _compare(condition, windows)


def signals_of(condition: Condition) -> Iterator[Signal]:
    """The signals that a condition looks at, in its order; one may come twice."""
    match condition:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from signals_of(part)
        case GapAbove(signal, other, _) | RatioAbove(signal, other, _):
            yield signal
            yield other
        case Above(signal, _) | Below(signal, _) | Near(signal, _, _) | VariationAbove(signal, _):
            yield signal
        case _:
            assert_never(condition)


def _compare(
    condition: Above | Below | Near | GapAbove | RatioAbove | VariationAbove, windows: Windows
) -> bool:
    mean = statistics.fmean(windows[condition.signal])
    match condition:
        case Above(_, limit):
            return mean > limit
        case Below(_, limit):
            return mean < limit
        case Near(_, value, tolerance):
            return abs(mean - value) < tolerance
        case GapAbove(_, other, limit):
            return mean - statistics.fmean(windows[other]) > limit
        case RatioAbove(_, other, limit):
            return mean > limit * statistics.fmean(windows[other])
        case VariationAbove(signal, limit):
            return statistics.pstdev(windows[signal]) > limit * abs(mean)
        case _:
            assert_never(condition)
