"""What ``auto`` comes to on this machine, by what is measured here, and which settings are slow here."""

from gad_ray.auto.choice import Choice, Resolved
from gad_ray.auto.decisions import remember_engine, resolve
from gad_ray.auto.precision import Speed, speed_from, speed_of, warn_of_slow_critic
from gad_ray.auto.rates import Rates, Shape, find_rates
from gad_ray.auto.shapes import shape_of
from gad_ray.auto.threads import share_of_cores

__all__ = [
    "Choice",
    "Rates",
    "Resolved",
    "Shape",
    "Speed",
    "find_rates",
    "remember_engine",
    "resolve",
    "shape_of",
    "share_of_cores",
    "speed_from",
    "speed_of",
    "warn_of_slow_critic",
]
