"""The parts of the measurement: each is kept when it is done, and not repeated with the same setting."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from gad_ray.bench.serve.latency import measure_latency
from gad_ray.bench.serve.overload import measure_overload
from gad_ray.bench.serve.setting import Setting, surroundings
from gad_ray.bench.serve.swaps import measure_swaps
from gad_ray.bench.serve.throughput import measure_peers, measure_throughput
from gad_ray.errors import ConfigError
from gad_ray.observability.files import write_text

_LOOK_S = 1.0
"""How long the machine is looked at before a part begins."""

Part = Callable[[Setting], dict[str, Any]]

PARTS: dict[str, Part] = {
    "throughput": measure_throughput,
    "latency": measure_latency,
    "peers": measure_peers,
    "swaps": measure_swaps,
    "overload": measure_overload,
}

_OWN: dict[str, tuple[str, ...]] = {
    "throughput": ("pairs", "longest", "each", "concurrency", "rounds"),
    "latency": ("pairs", "longest", "concurrency", "seconds"),
    "peers": ("pairs", "longest", "each", "concurrency", "rounds"),
    "swaps": ("minutes", "swap_every_s", "kill_every_s"),
    "overload": ("pairs", "longest", "concurrency", "seconds"),
}
"""Settings that a part depends on, beside those that all of them do."""

_COMMON = ("critic", "dtype", "threads", "batch_tokens", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeStudy:
    """Some parts, with one setting.

    Attributes:
        parts: Names out of :data:`PARTS`.
        setting: The setting.
    """

    parts: Sequence[str]
    setting: Setting

    def __post_init__(self) -> None:
        unknown = [name for name in self.parts if name not in PARTS]
        if unknown:
            raise ConfigError(
                f"there is no part {unknown[0]!r}", where="PART", hint=f"take some of {', '.join(PARTS)}"
            )

    def run(self) -> dict[str, Any]:
        """Measure what is not there yet.

        Returns:
            The figures of all parts that there are by now, which are also in ``serve.json``.

        Raises:
            GadError: If a server does not come up, or fails where it must not.
        """
        for number, name in enumerate(self.parts, start=1):
            if self._kept(name, exactly=True) is None:
                self.setting.tell(f"{name} ({number} of {len(self.parts)})")
                self._measure(name)
        figures = {name: kept for name in PARTS if (kept := self._kept(name, exactly=name in self.parts))}
        write_text(self.setting.out / "serve.json", json.dumps(figures, indent=1) + "\n")
        return figures

    def _measure(self, name: str) -> None:
        # Others' work: timings beside it are worth little.
        busy = psutil.cpu_percent(interval=_LOOK_S) / 100.0
        started = time.time()
        figures = PARTS[name](self.setting)
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
        return {key: whole[key] for key in (*_COMMON, *_OWN[name])}
