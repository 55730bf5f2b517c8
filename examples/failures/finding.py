"""What a reproduction of a failure found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One quantity, measured in the field's setting and with our defaults.

    Attributes:
        label: What was measured, with its unit.
        field: In the setting that fails in the field.
        ours: With our defaults; None where there is no counterpart.
    """

    label: str
    field: float
    ours: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One failure: what is claimed, what was measured, whether the claim held.

    Attributes:
        failure: Name on the command line.
        setting: What was set as in the field.
        ours: What our defaults are in its place.
        claim: The claim in words, with its thresholds.
        holds: Whether the figures bear it out.
        figures: What was measured, the figures that decide first.
        details: Further values, for the JSON alone.
        seconds: Wall time, shared preparations included where this failure was the first to need them.
    """

    failure: str
    setting: str
    ours: str
    claim: str
    holds: bool
    figures: tuple[Figure, ...]
    details: Mapping[str, object] = field(default_factory=dict[str, object])
    seconds: float = 0.0
