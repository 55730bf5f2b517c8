"""Plot the course of a run from its metrics.jsonl: ``python docs/figures/plot_run.py RUN OUT.png``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

PANELS = (
    ("critic: teacher preferred (d_acc)", ("critic/d_acc", "eval/d_acc", "eval/current_d_acc")),
    (
        "score difference, teacher − student",
        ("critic/score_diff", "eval/score_diff", "eval/current_score_diff"),
    ),
    ("reward of the student", ("critic/rewards/mean",)),
    ("response length, tokens", ("response_length/mean", "response_length/teacher_mean")),
)


def plot(run: Path, out: Path) -> None:
    """Draw four panels with the stage border, over the steps of a run."""
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    border = next((row["step"] - 0.5 for row in rows if row["stage"] == "adversarial"), None)
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), sharex=True, layout="constrained")
    for axis, (title, names) in zip(axes.flat, PANELS, strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            if points:
                marker = "o" if name.startswith("eval/") else None
                axis.plot(*zip(*points, strict=True), marker=marker, label=name)
        if border is not None:
            axis.axvline(border, color="grey", linestyle=":", label="the game begins")
        axis.set_title(title, fontsize=10)
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    plot(Path(sys.argv[1]), Path(sys.argv[2]))
