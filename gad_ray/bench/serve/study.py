"""The parts of the measurement: each is kept when it is done, and not repeated with the same setting."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from gad_ray.bench.serve.setting import Setting, surroundings
from gad_ray.bench.serve.tables import Table
from gad_ray.errors import ConfigError
from gad_ray.observability.files import write_text

_LOOK_S = 1.0
"""How long the machine is looked at before a part begins."""

_QUIET = 0.1
"""Share of the cores that others may use before a part begins, for its timings not to be called into question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that is measured, and how it is told.

    Attributes:
        measure: Gives the figures.
        settings: Settings that it depends on, beside those that all parts do.
        title: Of its table.
        table: Its figures as rows of text, the head first.
        notes: What the table does not say, a sentence a line.
    """

    measure: Callable[[Setting], dict[str, Any]]
    settings: tuple[str, ...]
    title: str
    table: Callable[[Mapping[str, Any]], Table]
    notes: Callable[[Mapping[str, Any]], list[str]]


_COMMON = ("critic", "dtype", "threads", "batch_tokens", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeStudy:
    """Some parts, with one setting.

    Attributes:
        known: All parts that there are, by name.
        parts: Names of those to measure; all when empty.
        setting: The setting.
    """

    known: Mapping[str, Part]
    parts: Sequence[str]
    setting: Setting

    def __post_init__(self) -> None:
        unknown = [name for name in self.parts if name not in self.known]
        if unknown:
            known = ", ".join(self.known)
            raise ConfigError(f"there is no part {unknown[0]!r}", where="PART", hint=f"take some of {known}")

    def run(self) -> dict[str, Any]:
        """Measure what is not there yet.

        Returns:
            The figures of all parts that there are by now, which are also in ``serve.json``.

        Raises:
            GadError: If a server does not come up, or fails where it must not.
        """
        wanted = list(self.parts) or list(self.known)
        for number, name in enumerate(wanted, start=1):
            if self._kept(name, exactly=True) is None:
                self.setting.tell(f"{name} ({number} of {len(wanted)})")
                self._measure(name)
        figures = {name: kept for name in self.known if (kept := self._kept(name, exactly=name in wanted))}
        write_text(self.setting.out / "serve.json", json.dumps(figures, indent=1) + "\n")
        return figures

    def _measure(self, name: str) -> None:
        # Others' work: timings beside it are worth little.
        busy = psutil.cpu_percent(interval=_LOOK_S) / 100.0
        started = time.time()
        figures = self.known[name].measure(self.setting)
        content = {
            "setting": self._definition(name),
            "surroundings": surroundings(),
            "busy_before": round(busy, 2),
            "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
            "minutes": (time.time() - started) / 60.0,
            "figures": figures,
        }
        write_text(self.setting.out / f"{name}.json", json.dumps(content, indent=1) + "\n")

    def _kept(self, name: str, *, exactly: bool) -> dict[str, Any] | None:
        """An earlier measurement; None if there is none, or ``exactly`` this one is wanted and it was another."""
        path = self.setting.out / f"{name}.json"
        if not path.is_file():
            return None
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if not exactly or content["setting"] == self._definition(name) else None

    def _definition(self, name: str) -> dict[str, Any]:
        whole = self.setting.definition()
        return {key: whole[key] for key in (*_COMMON, *self.known[name].settings)}


def notes_of(part: Part, kept: Mapping[str, Any]) -> list[str]:
    """What the table of a part does not say, a sentence a line.

    Args:
        part: The part.
        kept: What the study has kept of it.
    """
    lines = part.notes(kept["figures"])
    where, setting = kept["surroundings"], kept["setting"]
    versions = [f"{key} {where[key]}" for key in where if key not in ("processor", "cores", "memory_gib")]
    shown = {key: value for key, value in setting.items() if key != "critic"}
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
    lines.append(f"Setting: critic {setting['critic'][:16]}, {told}.")
    machine = f"{where['processor']}, {where['cores']:g} cores, {where['memory_gib']:g} GiB"
    lines.append(f"{kept['date']}, {kept['minutes']:.0f} minutes, {machine}; {', '.join(versions)}.")
    if kept["busy_before"] > _QUIET:
        lines.append(
            f"**The machine was busy with other work** ({kept['busy_before']:.0%} of its cores before this began): counts "
            "hold, speeds and times are not what it can do."
        )
    return lines
