"""From runs to one HTML file that needs nothing besides itself."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

import gad_ray
from gad_ray.report import overview
from gad_ray.report.curves import MAX_POINTS, curve_sections, run_header
from gad_ray.report.recorded import MAX_STEPS
from gad_ray.report.samples import sample_entries
from gad_ray.report.scores import length_charts, score_charts
from gad_ray.report.settings import differences
from gad_ray.report.timing import split_times, stage_times, timing_chart
from gad_ray.report.view import RunView

_SCRIPTS = ("text.js", "charts.js", "samples.js", "page.js")


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
    return _render(
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
    return _render(
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


def as_json(data: Any) -> str:
    """JSON that may stand inside a ``script`` element: nothing in it can end the element or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate, as a broken emoji leaves behind, is no UTF-8.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _render(template: str, data: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    style = _asset("report.css")
    script = "\n".join(["(() => {", '"use strict";', *(_asset(name) for name in _SCRIPTS), "})();"])
    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["duration"] = overview.duration  # pyright: ignore[reportArgumentType]
    environment.globals["moment"] = overview.moment  # pyright: ignore[reportArgumentType]
    # Only this style and this script may run, whatever else should get into the page.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = environment.get_template(template).render(
        **context, style=style, script=script, policy=policy, data=as_json(data), version=gad_ray.__version__
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (resources.files("gad_ray.report") / "assets" / name).read_text(encoding="utf-8")


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
