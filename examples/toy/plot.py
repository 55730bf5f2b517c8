"""The picture of the toy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from examples.toy.game import MODES, NUM_CLASSES, ToyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"SeqKD": "tab:orange", "the game": "tab:blue"}


def draw_toy(result: ToyResult, path: Path) -> None:
    """Write a PNG: what teacher and students draw, and how the students' means moved.

    Args:
        result: The toy's figures.
        path: The file; its directory must be there.
    """
    from matplotlib.figure import Figure

    # Without pyplot: nothing of this process's plotting state is touched, and no display is needed.
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _distributions(left, result)
    _courses(right, result)
    figure.savefig(path, format="png", dpi=110)


def _distributions(axes: Axes, result: ToyResult) -> None:
    classes = range(NUM_CLASSES)
    axes.bar(classes, result.teacher.probabilities, color="lightgrey", label="teacher")
    for (label, colour), figures in zip(_COLOURS.items(), (result.seqkd, result.game), strict=True):
        axes.plot(classes, figures.probabilities, "o-", color=colour, label=label)
    axes.set(xlabel="class", ylabel="probability", xticks=classes)
    axes.set_title("what each draws", fontsize=10)
    _finish(axes)


def _courses(axes: Axes, result: ToyResult) -> None:
    for (label, colour), course in zip(
        _COLOURS.items(), (result.seqkd_course, result.game_course), strict=True
    ):
        axes.plot(course, color=colour, label=label)
    for i, mode in enumerate(MODES):
        axes.axhline(mode, color="grey", linestyle=":", label=None if i else "the teacher's modes")
    axes.set(xlabel="step", ylabel="class")
    axes.set_title("centre of the student's Gaussian", fontsize=10)
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
