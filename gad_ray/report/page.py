"""From runs to one HTML file that needs nothing besides itself."""

from __future__ import annotations

from collections.abc import Sequence

from gad_ray.report import overview
from gad_ray.report.curves import MAX_POINTS, curve_sections, run_header
from gad_ray.report.html import render
from gad_ray.report.recorded import MAX_STEPS
from gad_ray.report.samples import sample_entries
from gad_ray.report.scores import length_charts, score_charts
from gad_ray.report.settings import differences
from gad_ray.report.timing import split_times, stage_times, timing_chart
from gad_ray.report.view import RunView


def run_page(view: RunView) -> str:
    """The report of one run, as HTML."""
    split = split_times(view)
    entries = sample_entries(view)
    sections = curve_sections([view])
    data = {
        "runs": [run_header(view, view.name)],
        "sections": sections,
        "scores": score_charts(view.records),
        "dots": length_charts(view.records),
        "timing": [] if split is None else [timing_chart(split)],
        "samples": entries,
    }
    return render(
        "run.html.jinja",
        data,
        {
            "view": view,
            "state": view.state.condition.name.lower(),
            "sections": sections,
            "tiles": overview.tiles(view),
            "verdicts": overview.verdicts(view.findings),
            "events": overview.other_events(view),
            "summary_rows": [overview.summary_row(row) for row in view.summary.rows] if view.summary else [],
            "split": split,
            "stage_times": stage_times(view, split) if split is not None else (),
            "num_entries": len(entries),
            "max_steps": MAX_STEPS,
            "max_points": MAX_POINTS,
            "changed": [setting for setting in view.settings.entries if setting.changed],
            "has_values": any("pieces" in side for entry in entries for side in entry["sides"]),
            "notes": (*view.notes, *view.records.notes, *view.evaluated.notes),
        },
    )


def comparison_page(views: Sequence[RunView]) -> str:
    """Several runs in one report, as HTML: figures in a table, curves over each other, settings that differ."""
    labels = _labels(views)
    sections = curve_sections(views)
    data = {
        "runs": [run_header(view, label) for view, label in zip(views, labels, strict=True)],
        "sections": sections,
    }
    return render(
        "comparison.html.jinja",
        data,
        {
            "views": views,
            "sections": sections,
            "labels": labels,
            "figures": overview.final_figures(views),
            "differences": differences(
                {label: view.settings for label, view in zip(labels, views, strict=True)}
            ),
            "verdicts": [overview.verdicts(view.findings) for view in views],
            "notes": [
                (label, (*view.notes, *view.records.notes, *view.evaluated.notes))
                for label, view in zip(labels, views, strict=True)
            ],
        },
    )


def _labels(views: Sequence[RunView]) -> list[str]:
    """The runs' names; with what tells them apart where several have one."""
    names = [view.name for view in views]
    labels = [
        name if names.count(name) == 1 else f"{view.root.parent.name}/{name}"
        for name, view in zip(names, views, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{label} ({position})"
        for position, label in enumerate(labels, start=1)
    ]
