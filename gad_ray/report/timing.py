"""Where a run's time goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gad_ray.report.curves import numbers
from gad_ray.report.view import RunView

Json = dict[str, Any]

MAX_BARS = 120
OTHER = "other"
_PREFIX = "timing_s/"
_ORDER = (
    "data",
    "rollout",
    "score",
    "update_critic",
    "logprobs",
    "update_actor",
    "sync",
    "exchange",
    "records",
    "eval",
    "checkpoint",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The seconds of every step by part.

    Attributes:
        steps: [S] int64, the steps that were timed.
        parts: The P parts, in the order of a step; what none of them covers is ``other``, the last.
        seconds: [P, S] float64.
    """

    steps: NDArray[np.int64]
    parts: tuple[str, ...]
    seconds: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """How the time of a stage divides.

    Attributes:
        stage: Its name.
        num_steps: Its steps that were timed.
        total: Their seconds.
        seconds: [P] of each part, in the order of :class:`Split`.
        shares: [P] of the total.
    """

    stage: str
    num_steps: int
    total: float
    seconds: tuple[float, ...]
    shares: tuple[float, ...]


def split_times(view: RunView) -> Split | None:
    """The seconds of every step by part; None where no step was timed.

    Parts may overlap, as where critic and policy update at the same time: then ``other`` is 0, not less.
    """
    whole = view.metrics.get(f"{_PREFIX}step")
    if whole is None or not np.isfinite(whole.values).any():
        return None
    timed = np.isfinite(whole.values)
    steps, total = whole.steps[timed], whole.values[timed]
    found = {name.removeprefix(_PREFIX) for name in view.metrics if name.startswith(_PREFIX)} - {"step"}
    names = [*(part for part in _ORDER if part in found), *sorted(found - set(_ORDER))]
    rows = np.zeros((len(names) + 1, len(steps)), dtype=np.float64)
    for row, name in enumerate(names):
        series = view.metrics[_PREFIX + name]
        _, here, there = np.intersect1d(steps, series.steps, return_indices=True)
        rows[row, here] = np.nan_to_num(series.values[there])
    rows[-1] = np.maximum(0.0, total - rows[:-1].sum(axis=0))
    return Split(steps=steps, parts=(*names, OTHER), seconds=rows)


def timing_chart(split: Split) -> Json:
    """Stacked seconds of the steps; a bar of a long run is the mean of several steps."""
    groups = np.array_split(np.arange(len(split.steps)), min(MAX_BARS, len(split.steps)))
    return {
        "kind": "bars",
        "title": "Seconds per step",
        "parts": list(split.parts),
        "first": [int(split.steps[group[0]]) for group in groups],
        "last": [int(split.steps[group[-1]]) for group in groups],
        "y": [numbers(row[group].mean() for group in groups) for row in split.seconds],
    }


def stage_times(view: RunView, split: Split) -> tuple[StageTime, ...]:
    """How the time of each stage divides."""
    times: list[StageTime] = []
    for stage in view.stages:
        inside = (split.steps >= stage.first) & (split.steps <= stage.last)
        seconds = split.seconds[:, inside].sum(axis=1)
        total = float(seconds.sum())
        if not total:
            continue
        times.append(
            StageTime(
                stage=stage.name,
                num_steps=int(inside.sum()),
                total=total,
                seconds=tuple(seconds.tolist()),
                shares=tuple((seconds / total).tolist()),
            )
        )
    return tuple(times)
