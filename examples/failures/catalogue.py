"""All failures by name, and the run that tries some of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from examples.failures import eos_asymmetry, frozen_critic, last_pooling, saturation, standing_still
from examples.failures.bench import Bench
from examples.failures.finding import Finding
from gad_ray.errors import ConfigError

FAILURES: dict[str, Callable[[Bench], Finding]] = {
    "eos-asymmetry": eos_asymmetry.reproduce,
    "last-pooling": last_pooling.reproduce,
    "saturation": saturation.reproduce,
    "frozen-critic": frozen_critic.reproduce,
    "standing-still": standing_still.reproduce,
}


def choose(names: Sequence[str]) -> list[str]:
    """The failures of these names, in the catalogue's order; all of them for no name.

    Raises:
        ConfigError: If there is none of a name.
    """
    unknown = [name for name in names if name not in FAILURES]
    if unknown:
        raise ConfigError(f"no failure is called {unknown[0]!r}", hint="give some of " + ", ".join(FAILURES))
    return [name for name in FAILURES if not names or name in names]


def reproduce(names: Sequence[str], bench: Bench) -> Iterator[Finding]:
    """Reproduce failures one after the other, each with its wall time."""
    for name in names:
        started = time.perf_counter()
        finding = FAILURES[name](bench)
        yield replace(finding, seconds=time.perf_counter() - started)
