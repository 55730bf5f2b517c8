"""Conditions of health rules: small typed comparisons over windows of signals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from gad_ray.health.signals import SOURCES, Signal

Windows = Mapping[Signal, Sequence[float]]
"""Signal → its latest values; a signal that is not known over the whole window is left out.

Of a sparse signal the latest value stands for the mean, and all values of the stage tell where it goes.
"""


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
class StaysAbove:
    """Every value of the window > limit: for what single values may exceed by far."""

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
class RatioBelow:
    """Mean of ``signal`` < limit × mean of ``other``."""

    signal: Signal
    other: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class VariationAbove:
    """Standard deviation over the window > limit × |mean|."""

    signal: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class VariationBelow:
    """Standard deviation over the window < limit × |mean|."""

    signal: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class DriftBelow:
    """From the window's first third to its last, the mean moves by less than limit × the larger |mean|."""

    signal: Signal
    limit: float


@dataclass(frozen=True, slots=True)
class Rises:
    """From the window's first third to its last, the mean rises by more than ``by``."""

    signal: Signal
    by: float


@dataclass(frozen=True, slots=True)
class Falls:
    """From the window's first third to its last, the mean falls by more than ``by``."""

    signal: Signal
    by: float


@dataclass(frozen=True, slots=True)
class Known:
    """The signal is known."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold, or is not known to."""

    part: Condition


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Condition, ...]


_OfOne = (
    Above | Below | StaysAbove | Near | VariationAbove | VariationBelow | DriftBelow | Rises | Falls | Known
)
_OfTwo = GapAbove | RatioAbove | RatioBelow
Comparison = _OfOne | _OfTwo
Condition = Comparison | Not | AllOf | AnyOf


def within(signal: Signal, band: tuple[float, float]) -> tuple[Condition, Condition]:
    """The parts that hold where the mean lies between both ends of a band."""
    return Above(signal, band[0]), Below(signal, band[1])


def holds(condition: Condition, windows: Windows) -> bool:
    """Whether a condition holds; a comparison of what is not known does not."""
    match condition:
        case AllOf(parts):
            return all(holds(part, windows) for part in parts)
        case AnyOf(parts):
            return any(holds(part, windows) for part in parts)
        case Not(part):
            return not holds(part, windows)
        case _:
            if any(not windows.get(signal) for signal in signals_of(condition)):
                return False
            return _compare(condition, windows)


def signals_of(condition: Condition) -> Iterator[Signal]:
    """The signals that a condition looks at, in its order; one may come twice."""
    for comparison in comparisons_of(condition):
        yield comparison.signal
        if isinstance(comparison, _OfTwo):
            yield comparison.other


def comparisons_of(condition: Condition) -> Iterator[Comparison]:
    """The comparisons that a condition is made of, in its order."""
    match condition:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from comparisons_of(part)
        case Not(part):
            yield from comparisons_of(part)
        case _:
            yield condition


def level(signal: Signal, windows: Windows) -> float:
    """The mean of a signal over its window, or its latest value if it is sparse."""
    values = windows[signal]
    return values[-1] if SOURCES[signal].sparse else statistics.fmean(values)


def _compare(condition: Comparison, windows: Windows) -> bool:
    values, mean = windows[condition.signal], level(condition.signal, windows)
    match condition:
        case Above(_, limit):
            return mean > limit
        case Below(_, limit):
            return mean < limit
        case StaysAbove(_, limit):
            return min(values) > limit
        case Known():
            return True
        case Near(_, value, tolerance):
            return abs(mean - value) < tolerance
        case GapAbove(_, other, limit):
            return mean - level(other, windows) > limit
        case RatioAbove(_, other, limit):
            return mean > limit * level(other, windows)
        case RatioBelow(_, other, limit):
            return mean < limit * level(other, windows)
        case VariationAbove(_, limit):
            return statistics.pstdev(values) > limit * abs(mean)
        case VariationBelow(_, limit):
            return len(values) > 1 and statistics.pstdev(values) < limit * abs(mean)
        case DriftBelow(_, limit):
            first, last = _ends(values)
            return len(values) > 1 and abs(last - first) < limit * max(abs(first), abs(last))
        case Rises(_, by):
            first, last = _ends(values)
            return last - first > by
        case Falls(_, by):
            first, last = _ends(values)
            return first - last > by
        case _:
            assert_never(condition)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and the last third of a window, which are equal where it holds one value."""
    third = max(1, len(values) // 3)
    return statistics.fmean(values[:third]), statistics.fmean(values[-third:])
