"""How scores are distributed over the steps, and what length has to do with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gad_ray.report.curves import number, numbers
from gad_ray.report.recorded import Recorded, spread

Json = dict[str, Any]

MAX_DOTS = 1500
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def score_charts(records: Recorded) -> list[Json]:
    """Quantiles of both sides' scores and of their difference by step; none without records."""
    if not len(records):
        return []
    steps = np.unique(records.steps)
    both = _quantile_chart("Scores by step", steps)
    for colour, (label, values) in enumerate((("teacher", records.teacher), ("student", records.student))):
        _add_quantiles(both, label, _by_step(records.steps, steps, values), colour=colour)
    gap = _quantile_chart("Teacher − student, within a prompt", steps)
    _add_quantiles(
        gap, "difference", _by_step(records.steps, steps, records.teacher - records.student), colour=2
    )
    gap["bands"] = [{"low": 0.0, "high": None, "label": "above 0 the teacher is preferred", "stages": []}]
    return [both, gap]


def length_charts(records: Recorded) -> list[Json]:
    """Score against length, as dots; none without records."""
    if not len(records):
        return []
    chosen = spread(len(records), MAX_DOTS)
    within = _within_groups(records)
    relation = correlation(records.student, records.tokens.astype(np.float64))
    relation_within = correlation(within[0], within[1])
    return [
        {
            "kind": "dots",
            "title": "Student's score against length",
            "x_label": "response tokens",
            "y_label": "score",
            "x": records.tokens[chosen].tolist(),
            "y": numbers(records.student[chosen]),
            "t": records.steps[chosen].tolist(),
            "hollow": records.cut[chosen].astype(int).tolist(),
            "caption": _told(
                relation, "over all responses; the prompt alone can make score and length go together"
            ),
        },
        {
            "kind": "dots",
            "title": "The same within a group",
            "x_label": "tokens − group's mean",
            "y_label": "score − group's mean",
            "x": numbers(within[1][chosen]),
            "y": numbers(within[0][chosen]),
            "t": records.steps[chosen].tolist(),
            "hollow": records.cut[chosen].astype(int).tolist(),
            "caption": _told(relation_within, "among responses to one prompt: what the advantages see"),
        },
    ]


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Pearson's, None where one of them does not vary."""
    if len(first) < 2 or first.std() < 1e-12 or second.std() < 1e-12:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _told(value: float | None, what: str) -> str:
    return (
        f"No correlation can be taken {what}."
        if value is None
        else f"Correlation {value:+.2f} {what}.".replace("-", "−")
    )


def _within_groups(records: Recorded) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and lengths, less the mean of their group."""
    _, group = np.unique(records.groups, return_inverse=True)
    sizes = np.bincount(group)

    def centred(values: NDArray[Any]) -> NDArray[np.float64]:
        means = np.bincount(group, weights=values) / sizes
        return values.astype(np.float64) - means[group]

    return centred(records.student), centred(records.tokens)


def _by_step(
    of: NDArray[np.int64], steps: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[steps, quantiles]."""
    borders = np.searchsorted(of, steps)
    parts = np.split(values, borders[1:])
    return np.asarray([np.quantile(part, _QUANTILES) for part in parts], dtype=np.float64)


def _quantile_chart(title: str, steps: NDArray[np.int64]) -> Json:
    return {
        "kind": "curves",
        "title": title,
        "bands": [],
        "lines": [],
        "areas": [],
        "log": False,
        "x": steps.tolist(),
    }


def _add_quantiles(chart: Json, label: str, quantiles: NDArray[np.float64], *, colour: int) -> None:
    steps = chart["x"]
    for low, high, what in ((0, 4, "5–95 %"), (1, 3, "25–75 %")):
        chart["areas"].append(
            {
                "label": f"{label} {what}",
                "run": 0,
                "colour": colour,
                "x": steps,
                "low": numbers(quantiles[:, low]),
                "high": numbers(quantiles[:, high]),
            }
        )
    chart["lines"].append(
        {
            "name": f"{label}, median",
            "help": "",
            "run": 0,
            "colour": colour,
            "x": steps,
            "y": numbers(quantiles[:, 2]),
            "last": number(quantiles[-1, 2]),
        }
    )
