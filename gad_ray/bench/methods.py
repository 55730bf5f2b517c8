"""Base, SeqKD, SODA and the game from the same model and data at about equal time, over several seeds.

Every student is trained by the command that a user would type, then judged in a fresh process on the same held-out
prompts. What was finished is kept: called again, the comparison goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gad_ray.activity import activity
from gad_ray.bench.process import exit_code
from gad_ray.config import load_config
from gad_ray.errors import GadError
from gad_ray.evaluation.intervals import over_repeats
from gad_ray.evaluation.policy_eval import judge_apart
from gad_ray.observability.files import write_text

METHODS: dict[str, tuple[str, ...]] = {
    "base": (),
    "seqkd": ("fit", "seqkd"),
    "soda": ("fit", "soda"),
    "game": ("train",),
}
"""The command of each method; the base model is not trained."""

MEASURES: dict[str, tuple[str, ...]] = {
    "fresh critic's AUC": ("fresh", "auc", "value"),
    "fresh critic's d_acc": ("fresh", "d_acc", "value"),
    "teacher's text, nats/token": ("nll",),
    "length / teacher's": ("length_ratio",),
    "cut at the limit": ("cut",),
    "distinct-1": ("distinct_1",),
    "distinct-2": ("distinct_2",),
    "training, seconds": ("train_seconds",),
}
"""What is tabled, and where it lies in a student's figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodsBench:
    """A comparison of methods.

    Attributes:
        recipe: Name or path of the game's recipe; the other methods take model, data and sizes from it.
        out: Directory of everything that is written.
        seeds: One student of every method for each.
        overrides: ``key=value`` for all of them.
        methods: Names out of :data:`METHODS`.
    """

    recipe: str
    out: Path
    seeds: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(METHODS)

    def run(self) -> dict[str, Any]:
        """Train and judge what is not there yet; returns all figures, which are also in ``methods.json``.

        Raises:
            GadError: If a student cannot be trained or judged.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        students = [self._student(method, seed) for seed in self.seeds for method in self.methods]
        figures = {"recipe": self.recipe, "overrides": list(self.overrides), "students": students}
        write_text(self.out / "methods.json", json.dumps(figures, indent=1) + "\n")
        return figures

    def _student(self, method: str, seed: int) -> dict[str, Any]:
        kept = self.out / f"{method}-{seed}.json"
        if not kept.exists():
            with activity(f"training a student by {method}, seed {seed}"):
                seconds, model = self._train(method, seed)
            judged = self._judge(method, model, seed)
            figures = {"method": method, "seed": seed, "train_seconds": seconds, **judged}
            write_text(kept, json.dumps(figures, indent=1) + "\n")
        return json.loads(kept.read_text(encoding="utf-8"))

    def _train(self, method: str, seed: int) -> tuple[float, str | None]:
        """Seconds of training, start-up left out, and the trained model; None for the recipe's own."""
        command = METHODS[method]
        if not command:
            return 0.0, None
        name = f"{method}-{seed}"
        root = self.out / "runs" / name
        model = root / "exports" / "policy"
        if not model.is_dir():
            settings = [f"name={name}", f"output_dir={self.out / 'runs'}", *_seeds(method, seed)]
            arguments = [*command, self.recipe, *self.overrides, *settings, "--resume", "auto"]
            code = exit_code([sys.executable, "-m", "gad_ray", *arguments])
            if code != 0:
                raise GadError(
                    f"'gad-ray {' '.join(arguments)}' ended with {code}",
                    hint="see what it said above; the comparison goes on from there when it is called again",
                )
        rows = (root / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return sum(json.loads(row)["timing_s/step"] for row in rows), str(model)

    def _judge(self, method: str, model: str | None, seed: int) -> dict[str, Any]:
        overrides = [*self.overrides, *_seeds(method, seed)]
        if model is not None:
            overrides.append(f"policy.model.model={model}")
        with activity(f"judging the student by {method}, seed {seed}"):
            return asdict(judge_apart(load_config(self.recipe, overrides), seed=seed, scratch=self.out))


def _seeds(method: str, seed: int) -> tuple[str, ...]:
    """Settings of one repeat. SeqKD samples nothing: what can differ between its students is the order of the data."""
    repeat = f"seed={seed}"
    return (repeat, f"data.seed={seed}") if method == "seqkd" else (repeat,)


def table(figures: dict[str, Any]) -> list[list[str]]:
    """Rows of text, the head first: each measure's mean and half of its 95 % interval over the seeds."""
    students: list[dict[str, Any]] = figures["students"]
    names = list(dict.fromkeys(student["method"] for student in students))
    rows = [["measure", *names]]
    for measure, path in MEASURES.items():
        cells = [
            _cell([_value(student, path) for student in students if student["method"] == name])
            for name in names
        ]
        rows.append([measure, *cells])
    return rows


def _value(student: dict[str, Any], path: Sequence[str]) -> float:
    value: Any = student
    for key in path:
        value = value[key]
    return float(value)


def _cell(values: Sequence[float]) -> str:
    interval = over_repeats(values)
    digits = 0 if abs(interval.value) >= 100 else 3
    half = interval.high - interval.value
    return f"{interval.value:.{digits}f}" + (f" ± {half:.{digits}f}" if np.isfinite(half) else "")
