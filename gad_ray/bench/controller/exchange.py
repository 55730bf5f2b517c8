"""A step in which nothing is computed: what it takes to bring responses from rollout workers to learners."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray

from gad_ray.activity import activity
from gad_ray.actors.session import RaySession
from gad_ray.bench.controller.actors import Simulation
from gad_ray.bench.controller.run import MIB, Sizes, simulated_run
from gad_ray.bench.figures import spread, this_machine
from gad_ray.observability.files import write_text

_PARTS = ("rollout", "update_critic", "reward", "update_actor", "sync", "exchange")
_COUNTED = ("calls", "sent_bytes", "read_bytes", "copied_bytes", "results", "result_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeBench:
    """The measurement.

    Attributes:
        sizes: Of a step, and how many take part.
        tokens: Of a response.
        weights_mib: Of the policy's weights.
        steps: Steps that count; one more comes first.
        out: Directory of what is written.
    """

    sizes: Sizes
    tokens: int
    weights_mib: int
    steps: int
    out: Path

    def run(self) -> dict[str, Any]:
        """Play and measure; the figures are also in ``exchange.json``.

        Raises:
            GadError: If a step fails.
        """
        what = Simulation(tokens=self.tokens, weights_bytes=self.weights_mib * MIB)
        seconds, parts = list[float](), list[dict[str, float]]()
        with RaySession(), simulated_run(self.sizes, what, steps=self.steps + 1, out=self.out) as run:
            with activity("one step that does not count"):
                run.step()
            before = half = run.state()
            for number in range(self.steps):
                if number == self.steps // 2:
                    half = run.state()
                with activity(f"step {number + 1} of {self.steps}", told=self.steps <= 10):
                    seconds.append(run.step())
                parts.append(run.parts())
            after = run.state()
            sent = (after.sent_bytes - before.sent_bytes) // self.steps
            with activity("as many bytes at once"):
                limits = {"memcpy": _memcpy_s(sent), "put and get": _put_and_get_s(sent)}
        figures = {
            "machine": this_machine(),
            "sizes": asdict(self.sizes) | {"tokens": self.tokens, "weights_mib": self.weights_mib},
            "seconds": {
                **spread(seconds),
                "steps": seconds,
            },
            "parts": {name: median(part.get(name, 0.0) for part in parts) for name in _PARTS},
            "limits": limits,
            "ratio": {name: median(seconds) / limit for name, limit in limits.items()},
            "a_step": {
                name: (getattr(after, name) - getattr(before, name)) / self.steps for name in _COUNTED
            },
            "spilled_mib": after.spilled_mib - before.spilled_mib,
            "before": asdict(before),
            "half": asdict(half),
            "after": asdict(after),
        }
        write_text(self.out / "exchange.json", json.dumps(figures, indent=1) + "\n")
        return figures


def _memcpy_s(num_bytes: int) -> float:
    source = np.ones(num_bytes, dtype=np.uint8)
    target = np.zeros_like(source)
    started = time.perf_counter()
    np.copyto(target, source)
    return time.perf_counter() - started


def _put_and_get_s(num_bytes: int) -> float:
    """One array of as many bytes put into the object store, and read from there."""
    source = np.ones(num_bytes // 8, dtype=np.int64)
    started = time.perf_counter()
    ray.get(ray.put(source)).sum()
    return time.perf_counter() - started


def table(figures: Mapping[str, Any]) -> list[Sequence[str]]:
    """Rows of text, the head first."""
    seconds, a_step = figures["seconds"], figures["a_step"]
    rows: list[Sequence[str]] = [
        ["of a step", ""],
        ["seconds", f"{seconds['median']:.2f} ({seconds['low']:.2f} to {seconds['high']:.2f})"],
        ["of which", ", ".join(f"{name} {value:.2f}" for name, value in figures["parts"].items())],
    ]
    rows += [
        [f"times one {name} of as many bytes", f"{ratio:.1f}"] for name, ratio in figures["ratio"].items()
    ]
    rows += [
        ["from rollout workers, MiB", f"{a_step['sent_bytes'] / MIB:.0f}"],
        ["read by learners, MiB", f"{a_step['read_bytes'] / MIB:.0f}"],
        ["copied by learners, MiB", f"{a_step['copied_bytes'] / MIB:.0f}"],
        ["messages to workers and ranks", f"{a_step['calls']:g}"],
        ["taken by the driver, KiB", f"{a_step['result_bytes'] / 1024:.0f}"],
        ["spilled in all, MiB", f"{figures['spilled_mib']:.0f}"],
    ]
    for name, key in {"driver": "driver_mib", "actors": "actors_mib", "object store": "store_mib"}.items():
        told = ", ".join(f"{figures[when][key]:.0f}" for when in ("before", "half", "after"))
        rows.append([f"memory of the {name} before, half-way, after, MiB", told])
    return rows
