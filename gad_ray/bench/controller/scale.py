"""Steps of more and more rollout workers and ranks, beside what their simulated work alone would take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gad_ray.activity import activity
from gad_ray.actors.session import RaySession
from gad_ray.bench.controller.actors import Simulation
from gad_ray.bench.controller.run import MIB, Sizes, simulated_run
from gad_ray.bench.figures import spread, this_machine
from gad_ray.observability.files import write_text

GOOD = 0.9
"""Least efficiency that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleBench:
    """The measurement. The work of each worker stays the same, so that the ideal step takes as long at every size.

    Attributes:
        workers: Most rollout workers.
        ranks: Most ranks of the critic, and of the policy.
        prompts: Of a step, for each worker.
        responses: To each prompt.
        what: What workers and ranks do.
        steps: Steps of each size that count; one more comes first.
        processes: Most that the actors of one kind take.
        out: Directory of what is written.
    """

    workers: int
    ranks: int
    prompts: int
    responses: int
    what: Simulation
    steps: int
    processes: int
    out: Path

    @property
    def ideal_s(self) -> float:
        """Seconds of a step if messages and the controller took none: its parts follow on one another."""
        return self.what.rollout_s + self.what.critic_s + self.what.policy_s + self.what.sync_s

    def run(self) -> dict[str, Any]:
        """Play and measure; the figures are also in ``scale.json``.

        Raises:
            GadError: If a step fails.
        """
        rows = list[dict[str, Any]]()
        with RaySession():
            for workers, ranks in sizes_up_to(self.workers, self.ranks):
                with activity(f"{workers} workers, {ranks} ranks of critic and policy each"):
                    rows.append(self._measure(workers, ranks))
        figures = {
            "machine": this_machine(),
            "simulated": asdict(self.what) | {"processes of a kind": self.processes},
            "ideal_s": self.ideal_s,
            "rows": rows,
            "breaks": next((row["workers"] for row in rows if row["efficiency"] < GOOD), None),
        }
        write_text(self.out / "scale.json", json.dumps(figures, indent=1) + "\n")
        return figures

    def _measure(self, workers: int, ranks: int) -> dict[str, Any]:
        sizes = Sizes(
            prompts=self.prompts * workers,
            responses=self.responses,
            workers=workers,
            critics=ranks,
            policies=ranks,
            processes=self.processes,
        )
        with simulated_run(sizes, self.what, steps=self.steps + 1, out=self.out) as run:
            run.step()
            before = run.state()
            seconds = [run.step() for _ in range(self.steps)]
            parts, after = run.parts(), run.state()
        return {
            "workers": workers,
            "ranks": ranks,
            "calls": (after.calls - before.calls) / self.steps,
            "results": (after.results - before.results) / self.steps,
            "sent_mib": (after.sent_bytes - before.sent_bytes) / self.steps / MIB,
            "spilled_mib": after.spilled_mib - before.spilled_mib,
            "seconds": spread(seconds),
            "parts": parts,
            "efficiency": self.ideal_s / median(seconds),
        }


def sizes_up_to(workers: int, ranks: int) -> list[tuple[int, int]]:
    """Workers and ranks of every size: workers double, and ranks stand to them as at the end, but are never less than one."""
    sizes = [2**i for i in range(workers.bit_length()) if 2**i < workers]
    return [(count, max(1, count * ranks // workers)) for count in (*sizes, workers)]


def table(figures: Mapping[str, Any]) -> list[Sequence[str]]:
    """Rows of text, the head first."""
    head = ["workers", "ranks of each", "messages", "MiB of responses", "seconds a step", "of the ideal"]
    rows: list[Sequence[str]] = [head]
    for row in figures["rows"]:
        seconds = row["seconds"]
        rows.append(
            [
                str(row["workers"]),
                str(row["ranks"]),
                f"{row['calls']:g}",
                f"{row['sent_mib']:.1f}",
                f"{seconds['median']:.2f} ({seconds['low']:.2f} to {seconds['high']:.2f})",
                f"{row['efficiency']:.3f}",
            ]
        )
    return rows
