"""The precision that a run computes in: what ``auto`` comes to on this machine, and what would be slow here."""

from gad_ray.precision.choice import (
    Choice,
    Resolved,
    Speed,
    resolve_precision,
    shape_of,
    speed_from,
    speed_of,
    warn_of_slow_critic,
)
from gad_ray.precision.rates import Rates, Shape, find_rates, keep_rates, kept_rates, rates_file

__all__ = [
    "Choice",
    "Rates",
    "Resolved",
    "Shape",
    "Speed",
    "find_rates",
    "keep_rates",
    "kept_rates",
    "rates_file",
    "resolve_precision",
    "shape_of",
    "speed_from",
    "speed_of",
    "warn_of_slow_critic",
]
