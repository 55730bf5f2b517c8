"""A setting that the machine may decide: what it came to, how, why, and whether it is slow here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gad_ray.config import RunConfig

Came = Literal["auto", "set", "resumed"]

SLOW = 2.0
"""Times by which ``auto`` must be faster for a size, a number of threads or an engine to be warned of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One setting of a run.

    Attributes:
        key: The setting, as ``policy.model.compute``.
        taken: What it came to.
        came: Whether by ``auto``, as it was set, or as the run began that is resumed.
        reason: Why ``auto`` takes this, or what was measured of it; None where nothing had to be found out.
        slow: Why it is slow here, with rates; None where it is not.
        better: What to set in its place, if it is slow.
        unset: How ``auto`` is asked for.
    """

    key: str
    taken: str | int
    came: Came
    reason: str | None = None
    slow: str | None = None
    better: str = "auto"
    unset: str = "auto"

    def __str__(self) -> str:
        how = {"auto": f"which {self.unset} comes to", "set": "as set", "resumed": "as the run began"}[
            self.came
        ]
        return f"{self.key} = {self.taken}, {how}" + (f": {self.reason}" if self.reason else "")

    @property
    def warning(self) -> str | None:
        """What to say of a slow choice before models load; None of any other."""
        if self.slow is None or self.came == "auto":
            return None
        hint = (
            f"set {self.key}={self.unset}" + (f", or {self.better}" if self.better != self.unset else "")
            if self.unset == "auto"
            else f"leave {self.key} out"
        )
        if self.came == "resumed":
            hint = f"a resumed run keeps what it began with; a new one takes {self.better} with {self.key}={self.unset}"
        return f"{self.key} = {self.taken} is slow here: {self.slow} → {hint}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A run's configuration in which nothing is ``auto``, and how that came about."""

    config: RunConfig
    choices: tuple[Choice, ...]

    @property
    def lines(self) -> list[str]:
        """A line for each setting."""
        return [str(choice) for choice in self.choices]

    @property
    def warnings(self) -> list[str]:
        """A line for each slow choice."""
        return [warning for choice in self.choices if (warning := choice.warning)]
