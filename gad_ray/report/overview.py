"""What a report says in words and tables: the run at a glance, its health, before and after."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from gad_ray.observability.summary import SummaryRow
from gad_ray.report.view import Event, RunView

_KEY_FIGURES = (
    "critic/d_acc",
    "critic/score_diff",
    "critic/rewards/mean",
    "eval/d_acc",
    "eval/score_diff",
    "response_length/mean",
    "actor/kl_loss",
    "actor/entropy",
    "dpo/accuracy",
    "actor/ce_loss",
)
_LATEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A health rule that began to hold.

    Attributes:
        rule: Its name.
        severity: ``warning`` or ``critical``.
        where: Stage and steps.
        evidence: What was measured.
        meaning: What it means.
        advice: ``key=value`` overrides that answer it.
        times: How often it began to hold.
        language: Of the meaning, as HTML names it.
    """

    rule: str
    severity: str
    where: str
    evidence: str
    meaning: str
    advice: tuple[str, ...]
    times: int
    language: str


def tiles(view: RunView) -> list[tuple[str, str]]:
    """The run at a glance: (what, figure)."""
    shown = [("steps", _steps(view)), ("in steps", time_spent(view))]
    per_step = view.metrics.get("timing_s/step")
    if per_step is not None and np.isfinite(per_step.values).any():
        shown.append(("median step", duration(float(np.nanmedian(per_step.values)))))
    memory = peak_memory_gib(view)
    if memory is not None:
        shown.append(("peak memory", f"{memory:.1f} GiB"))
    shown.append(("health findings", str(len(view.findings))))
    if view.num_quarantined:
        shown.append(("quarantined rows", str(view.num_quarantined)))
    return shown


def _steps(view: RunView) -> str:
    if not len(view.steps):
        return "0"
    parts = [f"{stage.last - stage.first + 1} {stage.name}" for stage in view.stages]
    return f"{int(view.steps[-1])} ({', '.join(parts)})"


def time_spent(view: RunView) -> str:
    """Of all steps together, without breaks between them; a dash where it is not known."""
    per_step = view.metrics.get("timing_s/step")
    if per_step is None or not np.isfinite(per_step.values).any():
        return "–"
    return duration(float(np.nansum(per_step.values)))


def peak_memory_gib(view: RunView) -> float | None:
    """Largest memory of all processes together, None if it was not measured."""
    if view.summary is not None and view.summary.peak_memory_gib is not None:
        return view.summary.peak_memory_gib
    series = view.metrics.get("perf/memory_bytes")
    if series is None or not np.isfinite(series.values).any():
        return None
    return float(np.nanmax(series.values)) / 2**30


def duration(seconds: float) -> str:
    """Seconds as a reader likes them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(seconds: float) -> str:
    """A time of day, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def verdicts(findings: Sequence[Event]) -> list[Verdict]:
    """One verdict a rule and stage, the critical ones first; evidence and advice are those of the first time."""
    found: dict[tuple[str, str], list[Event]] = {}
    for event in findings:
        key = (str(event.content.get("rule", "?")), str(event.content.get("stage", "")))
        found.setdefault(key, []).append(event)
    verdicts = [_verdict(rule, stage, events) for (rule, stage), events in found.items()]
    return sorted(verdicts, key=lambda verdict: verdict.severity != "critical")


def _verdict(rule: str, stage: str, events: Sequence[Event]) -> Verdict:
    first = events[0].content
    steps = ", ".join(str(event.step) for event in events[:6] if event.step is not None)
    more = f" and {len(events) - 6} more times" if len(events) > 6 else ""
    values = first.get("values")
    evidence = ""
    if isinstance(values, Mapping):
        pairs = cast("Mapping[str, Any]", values).items()
        evidence = ", ".join(
            f"{name} {_figure(value)}" for name, value in pairs if isinstance(value, (int, float))
        )
    advice = first.get("advice")
    return Verdict(
        rule=rule,
        severity=str(first.get("severity", "warning")),
        where=f"{stage}, from step {steps}{more}" if steps else stage,
        evidence=evidence,
        meaning=str(first.get("meaning", "")),
        advice=tuple(str(item) for item in cast("list[Any]", advice)) if isinstance(advice, list) else (),
        times=len(events),
        language="zh-Hans" if first.get("language") == "zh" else "en",
    )


def other_events(view: RunView) -> list[tuple[str, str, str]]:
    """What happened besides steps and findings: (step or time, what, details)."""
    rows: list[tuple[str, str, str]] = []
    for event in view.events:
        if event.name == "health":
            continue
        when = f"step {event.step}" if event.step is not None else ""
        if not when and event.time is not None and np.isfinite(event.time):
            when = moment(event.time)
        content = dict(event.content)
        # An error speaks for itself, in lines of its own.
        error = str(content.pop("error", ""))
        details = "\n".join(
            filter(None, [error, ", ".join(f"{key} {value}" for key, value in content.items())])
        )
        rows.append((when, event.name.replace("_", " "), details))
    return rows


def summary_row(row: SummaryRow) -> tuple[str, str, str, str]:
    """Label, before, after, and ``better``, ``worse`` or nothing."""
    judged = {True: "better", False: "worse", None: ""}[row.improved]
    return row.label, _with_unit(row.before, row), _with_unit(row.after, row), judged


def _with_unit(value: float | None, row: SummaryRow) -> str:
    if value is None:
        return "–"
    figure = f"{value:,.{row.digits}f}".replace("-", "−")
    return f"{figure} {row.unit}" if row.unit else figure


def final_figures(views: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    """What runs came to, a row a figure: (label, value of each run); a dash where a run has none."""
    rows: list[tuple[str, list[str]]] = [
        ("state", [view.state.condition.value for view in views]),
        ("steps", [_steps(view) for view in views]),
        ("time in steps", [time_spent(view) for view in views]),
        ("health findings", [str(len(view.findings)) for view in views]),
    ]
    memories = [peak_memory_gib(view) for view in views]
    rows.append(("peak memory", ["–" if m is None else f"{m:.1f} GiB" for m in memories]))
    tables = [{_bare(row.label): row for row in view.summary.rows} if view.summary else {} for view in views]
    for label in _in_order(tables):
        cells = [_before_after(table[label]) if label in table else "–" for table in tables]
        rows.append((f"{label}, before → after", cells))
    for name in _KEY_FIGURES:
        values = [_latest(view, name) for view in views]
        if any(value is not None for value in values):
            cells = ["–" if value is None else _figure(value) for value in values]
            what = "the last value" if name.startswith("eval/") else f"mean of the last {_LATEST} values"
            rows.append((f"{name}, {what}", cells))
    return rows


def _bare(label: str) -> str:
    """A label of the account without the teacher's figure, which differs from run to run."""
    head, separator, tail = label.partition("(")
    parts = [part.strip() for part in tail.rstrip(")").split(";")]
    kept = "; ".join(part for part in parts if part and not part.startswith("teacher "))
    return f"{head.strip()} ({kept})" if separator and kept else head.strip()


def _in_order(tables: Iterable[Mapping[str, SummaryRow]]) -> list[str]:
    return list(dict.fromkeys(label for table in tables for label in table))


def _before_after(row: SummaryRow) -> str:
    _, before, after, _ = summary_row(row)
    return f"{before} → {after}"


def _latest(view: RunView, name: str) -> float | None:
    series = view.metrics.get(name)
    if series is None:
        return None
    finite = series.values[np.isfinite(series.values)]
    return float(finite[-1 if name.startswith("eval/") else -_LATEST :].mean()) if len(finite) else None


def _figure(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
