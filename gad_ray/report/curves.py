"""Curves as the page draws them: few enough points, with stages, bands and events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gad_ray.observability.metrics import METRICS, Unit
from gad_ray.report.catalogue import NOT_DRAWN, OTHER, SECTIONS, TIMING, Chart, Section
from gad_ray.report.view import RunView, Series

Json = dict[str, Any]

MAX_POINTS = 1000
"""Points that a curve asks for; a longer one keeps the smallest and the largest value of each stretch."""

_UNITS: Mapping[Unit, str] = {
    Unit.SECONDS: "s",
    Unit.BYTES: "bytes",
    Unit.TOKENS: "tokens",
    Unit.TOKENS_PER_SECOND: "tokens/s",
    Unit.NATS: "nats",
    Unit.EPOCHS: "epochs",
}


def number(value: float | np.floating[Any] | None) -> float | None:
    """Six significant digits, which is more than a picture shows; None for what is not finite."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{float(value):.6g}")


def numbers(values: Iterable[float]) -> list[float | None]:
    """Each as :func:`number` gives it."""
    return [number(value) for value in values]


def thinned(values: NDArray[np.float64], limit: int = MAX_POINTS) -> NDArray[np.int64]:
    """Indices of at most ``limit`` values that keep the shape of a curve.

    The values are cut into stretches of equal length, and of each the smallest and the largest are kept: a single
    outlier is never lost. A stretch with a value that is not finite keeps one of those too, so that it shows.
    """
    if len(values) <= limit:
        return np.arange(len(values), dtype=np.int64)
    kept: set[int] = {0, len(values) - 1}
    # Of each of the stretches at most three are kept.
    for stretch in np.array_split(np.arange(len(values)), max(1, (limit - 2) // 3)):
        part = values[stretch]
        finite = np.isfinite(part)
        if finite.any():
            kept.add(int(stretch[np.where(finite, part, np.inf).argmin()]))
            kept.add(int(stretch[np.where(finite, part, -np.inf).argmax()]))
        if not finite.all():
            kept.add(int(stretch[np.flatnonzero(~finite)[0]]))
    return np.asarray(sorted(kept), dtype=np.int64)


def describe(name: str) -> str:
    """What a metric means, with its unit."""
    spec = METRICS.get(name)
    if spec is None:
        return "A metric that this version does not know"
    unit = _UNITS.get(spec.unit, "")
    return f"{spec.description} ({unit})" if unit else spec.description


def run_header(view: RunView, label: str) -> Json:
    """What all charts share of a run: its stages and what happened."""
    return {
        "label": label,
        "steps": [int(view.steps[0]), int(view.steps[-1])] if len(view.steps) else [0, 0],
        "stages": [{"name": s.name, "first": s.first, "last": s.last} for s in view.stages],
        "events": [
            {
                "step": event.step,
                "kind": "finding" if event.name == "health" else "event",
                "severity": str(event.content.get("severity", "")),
                "label": str(event.content.get("rule", event.name)),
            }
            for event in view.events
            if event.step is not None
        ],
    }


def curve_sections(views: Sequence[RunView]) -> list[Json]:
    """All sections with the curves that at least one of the runs has.

    One run: a chart holds the curves that belong together. Several: every curve has a chart of its own, so that
    the runs can be told apart in it.
    """
    present = {name for view in views for name in view.metrics} - NOT_DRAWN
    sections = [*SECTIONS, _timing(present if len(views) > 1 else set()), _others(present)]
    drawn: list[Json] = []
    for section in sections:
        charts = section.charts if len(views) == 1 else tuple(_one_by_one(section.charts, present))
        payloads = [payload for chart in charts if (payload := _chart(chart, views)) is not None]
        if payloads:
            drawn.append(
                {
                    "id": section.id,
                    "short": section.short,
                    "title": section.title,
                    "text": section.text,
                    "charts": payloads,
                }
            )
    return drawn


def _others(present: set[str]) -> Section:
    """The metrics that no chart names."""
    named = {name for section in SECTIONS for chart in section.charts for name in _all_of(chart)}
    rest = sorted(
        name
        for name in present - named
        if not name.startswith("timing_s/") and not _is_end_of_interval(name, present)
    )
    return replace(OTHER, charts=tuple(Chart(title=name, metrics=(name,)) for name in rest))


def _timing(present: set[str]) -> Section:
    names = sorted(name for name in present if name.startswith("timing_s/"))
    return replace(TIMING, charts=tuple(Chart(title=name, metrics=(name,)) for name in names))


def _all_of(chart: Chart) -> Iterator[str]:
    yield from chart.metrics
    for low, high, _ in chart.spans:
        yield low
        yield high


def _curves_of(chart: Chart, view: RunView) -> list[str]:
    """The metrics of a chart that one run draws as curves: not those between which it fills an area."""
    present = [name for name in _all_of(chart) if name in view.metrics]
    filled = {end for low, high, of in chart.spans if {low, high, of} <= set(present) for end in (low, high)}
    return [name for name in present if name not in filled]


def _is_end_of_interval(name: str, present: set[str]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in present for end in ("_low", "_high"))


def _one_by_one(charts: Iterable[Chart], present: set[str]) -> Iterator[Chart]:
    for chart in charts:
        for position, name in enumerate(_all_of(chart)):
            # What a chart draws beside its subject is drawn elsewhere as a subject.
            if name in present and not (name.startswith("critic/") and chart.metrics[0].startswith("eval/")):
                bands = chart.bands if position == 0 else ()
                yield Chart(title=name, metrics=(name,), bands=bands, log=chart.log)


def _chart(chart: Chart, views: Sequence[RunView]) -> Json | None:
    lines: list[Json] = []
    areas: list[Json] = []
    for run, view in enumerate(views):
        here = _curves_of(chart, view)
        kept = _kept([view.metrics[name] for name in here])
        for position, name in enumerate(here):
            colour = run if len(views) > 1 else position
            lines.append(_line(name, view.metrics[name], kept[position], run=run, colour=colour))
            ends = _ends(chart, view, name) if len(views) == 1 or name.startswith("eval/") else None
            if ends is not None:
                areas.append(_area(view, *ends, run=run, colour=colour))
    if not lines:
        return None
    return {
        "kind": "curves",
        "title": chart.title,
        "bands": [
            {"low": band.low, "high": band.high, "label": band.label, "stages": list(band.stages)}
            for band in chart.bands
            # Runs that are compared have their stages at other steps.
            if len(views) == 1 or not band.stages
        ],
        "lines": lines,
        "areas": areas,
        "log": chart.log,
    }


def _kept(series: Sequence[Series]) -> list[NDArray[np.int64]]:
    """Which points of each curve are drawn: the same steps of all, where they have the same."""
    kept = [thinned(one.values) for one in series]
    if all(np.array_equal(one.steps, series[0].steps) for one in series):
        # A cursor at one step then finds a value of every curve.
        together = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *kept]))
        return [together] * len(series)
    return kept


def _line(name: str, series: Series, kept: NDArray[np.int64], *, run: int, colour: int) -> Json:
    return {
        "name": name,
        "help": describe(name),
        "run": run,
        "colour": colour,
        "x": series.steps[kept].tolist(),
        "y": numbers(series.values[kept]),
        "last": number(series.last()),
    }


def _ends(chart: Chart, view: RunView, name: str) -> tuple[str, str, str] | None:
    """What an area around a curve shows, and the names of its ends: a spread of the chart's, or an interval."""
    for low, high, of in chart.spans:
        if of == name and low in view.metrics and high in view.metrics:
            return "smallest to largest", low, high
    low, high = f"{name}_low", f"{name}_high"
    return ("95 % interval", low, high) if low in view.metrics and high in view.metrics else None


def _area(view: RunView, label: str, lower: str, upper: str, *, run: int, colour: int) -> Json:
    low, high = view.metrics[lower], view.metrics[upper]
    steps, at_low, at_high = np.intersect1d(low.steps, high.steps, return_indices=True)
    bottom, top = low.values[at_low], high.values[at_high]
    # Of each stretch the widest places of both ends.
    kept = np.union1d(thinned(bottom, MAX_POINTS // 2), thinned(top, MAX_POINTS // 2))
    return {
        "label": label,
        "ends": [lower, upper],
        "run": run,
        "colour": colour,
        "x": steps[kept].tolist(),
        "low": numbers(bottom[kept]),
        "high": numbers(top[kept]),
    }
