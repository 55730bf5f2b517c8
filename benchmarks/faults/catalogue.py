"""All cases by name."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.faults.case import Case
from benchmarks.faults.critic_cases import CRITIC_CASES
from benchmarks.faults.data_cases import DATA_CASES
from benchmarks.faults.game_cases import GAME_CASES
from benchmarks.faults.healthy_cases import HEALTHY_CASES
from gad_ray.errors import ConfigError

CASES: dict[str, Case] = {
    case.name: case for case in (*CRITIC_CASES, *GAME_CASES, *DATA_CASES, *HEALTHY_CASES)
}


def choose(names: Sequence[str]) -> list[Case]:
    """The cases of these names, in the catalogue's order; all of them for no name.

    Raises:
        ConfigError: If there is none of a name.
    """
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ConfigError(f"no case is called {unknown[0]!r}", hint="--list shows them all")
    return [case for name, case in CASES.items() if not names or name in names]
