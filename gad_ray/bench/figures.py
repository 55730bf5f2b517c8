"""What measurements have in common: how several figures are told, and the machine that gave them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from gad_ray import machine


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and ends of some figures."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def this_machine() -> str:
    """The processor, and the cores that this process may use."""
    return f"{machine.cpu().model}, {machine.share_of_cores(1)} cores"
