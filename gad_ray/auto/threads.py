"""How many threads a process that computes is given: its share of the cores, hyper-threads counted where they help."""

from __future__ import annotations

from gad_ray import machine
from gad_ray.auto.choice import SLOW, Choice
from gad_ray.auto.rates import Rates, find_rates
from gad_ray.auto.shapes import is_tiny, shape_of

_HELPS = 1.05
"""Times by which all logical cores must be faster than the physical ones alone to be taken."""


def share_of_cores(model: str, count: int) -> int:
    """Threads for each of ``count`` processes that compute at the same time."""
    return max(1, compute_cores(model)[0] // count)


def compute_cores(model: str) -> tuple[int, str]:
    """Cores that are shared out, and why. Measured only where the machine has hyper-threads."""
    logical, physical = machine.share_of_cores(1), machine.physical_cores()
    if physical >= logical or is_tiny(shape_of(model)):
        return logical, f"{logical} core{'s' * (logical > 1)}, no hyper-threads among them"
    rates = {threads: find_rates(shape_of(model), threads=threads) for threads in (physical, logical)}
    return choose_cores(physical, rates[physical], logical, rates[logical])


def choose_cores(physical: int, by_physical: Rates, logical: int, by_logical: Rates) -> tuple[int, str]:
    """All logical cores if they are clearly faster than the physical ones, which leave the others to the rest."""
    told = f"{by_logical.best:.0f} GFLOP/s by all {logical} logical cores, {by_physical.best:.0f} by the {physical} physical ones"
    return (logical if by_logical.best >= _HELPS * by_physical.best else physical), told


def threads_choice(key: str, asked: int | None, *, model: str, count: int, alone: bool) -> Choice:
    """The threads of each of ``count`` processes.

    They are not written into the configuration: a run that goes on elsewhere takes that machine's.

    Args:
        key: The setting.
        asked: What it says; None for a share of the cores.
        model: What computes.
        count: Processes that share the cores.
        alone: Whether nothing else computes meanwhile: few threads may be meant otherwise.
    """
    cores, told = compute_cores(model)
    share = max(1, cores // count)
    if asked is None:
        return Choice(key=key, taken=share, came="auto", reason=told, unset="its absence")
    shape = shape_of(model)
    if asked == share or not alone or is_tiny(shape):
        return Choice(key=key, taken=asked, came="set", unset="its absence")
    set_, best = (find_rates(shape, threads=threads) for threads in (asked, share))
    return slow_threads(key, asked, set_, share, best)


def slow_threads(key: str, asked: int, rates: Rates, share: int, best: Rates) -> Choice:
    """The verdict on threads that are set, beside those that would be taken."""
    told = f"{rates.best:.0f} GFLOP/s by {asked}, {best.best:.0f} by {share}"
    slow = told if best.best >= SLOW * rates.best else None
    return Choice(
        key=key, taken=asked, came="set", reason=told, slow=slow, better=str(share), unset="its absence"
    )
