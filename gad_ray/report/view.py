"""A run as its files tell it: read only, whether it has ended, is still going, or died before its first step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from gad_ray.errors import ConfigError, GadError
from gad_ray.observability.jsonl import read_lines
from gad_ray.observability.run_dir import RunDirectory, find_run
from gad_ray.observability.summary import RunSummary, SampleRow
from gad_ray.report.recorded import Recorded, read_records
from gad_ray.report.settings import Settings, read_settings
from gad_ray.report.state import RunState, state_of

_MAX_EVALUATED = 100
_SAMPLE: TypeAdapter[SampleRow] = TypeAdapter(SampleRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One metric over the steps that have it.

    Attributes:
        steps: [n] int64, increasing.
        values: [n] float64; NaN where the value was not finite.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def last(self) -> float | None:
        """The latest finite value, None if there is none."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite[-1]) if len(finite) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Steps in a row of one stage, the first and the last included."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened besides the steps.

    Attributes:
        name: What kind it is.
        time: Unix seconds, None if it was not noted.
        step: The step it belongs to, None where it belongs to none.
        content: All else that was noted.
    """

    name: str
    time: float | None
    step: int | None
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """Everything that a report tells of one run.

    Attributes:
        root: The run's directory.
        state: How far it has come.
        steps: [S] int64, the steps that were logged, increasing.
        times: [S] float64 Unix seconds at which they were.
        stages: The stages in their order.
        metrics: Metric name → its values.
        events: In the order in which they happened, without those of steps that were played again.
        summary: The account at the run's end, None before it.
        heldout: The held-out prompts with all answers, where the run has come to them.
        records: The score records of the training steps.
        evaluated: Those of the policy's answers to held-out prompts, at every evaluation.
        settings: The configuration.
        versions: Versions of software, and the machine.
        num_quarantined: Rows of data that could not be used.
        warm_start: The directory of the offline fit that the run began with, None if it did not.
        notes: What could not be read.
        read_at: Unix seconds at which all this was read.
    """

    root: Path
    state: RunState
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    stages: tuple[Stage, ...]
    metrics: Mapping[str, Series]
    events: tuple[Event, ...]
    summary: RunSummary | None
    heldout: tuple[SampleRow, ...]
    records: Recorded
    evaluated: Recorded
    settings: Settings
    versions: Mapping[str, Any]
    num_quarantined: int
    warm_start: Path | None
    notes: tuple[str, ...]
    read_at: float

    @property
    def name(self) -> str:
        """The run's name."""
        return self.root.name

    @property
    def findings(self) -> tuple[Event, ...]:
        """The health rules that began to hold."""
        return tuple(event for event in self.events if event.name == "health")


def find_view(name_or_path: str, runs: str | Path = "runs", *, now: float | None = None) -> RunView:
    """Read the run at a path, or of a name under ``runs``.

    Raises:
        ConfigError: If there is no such run.
    """
    root = Path(name_or_path)
    if (root / "metrics.jsonl").is_file():
        # Also a directory that holds no more than the metrics, brought here from elsewhere.
        return load_view(root, now=now)
    return load_view(find_run(name_or_path, runs).root, now=now)


def load_view(root: Path, *, now: float | None = None) -> RunView:
    """Read a run's directory. What is missing or broken in it becomes a note, not an error.

    Args:
        root: The directory.
        now: Unix seconds that "now" is; the clock's when None.

    Raises:
        ConfigError: If there is no such directory.
    """
    # A link or a relative path tells no name.
    directory = RunDirectory(root=root.resolve())
    if not directory.root.is_dir():
        raise ConfigError(f"no such directory: {root}", hint="give a run's directory or its name")
    read_at = time.time() if now is None else now
    metrics = read_lines(directory.metrics_jsonl)
    events = read_lines(directory.events_jsonl)
    quarantined = read_lines(directory.quarantine_jsonl)
    rows, notes = _steps(metrics.rows)
    summary, summary_notes = _summary(directory.summary_json)
    samples = read_lines(directory.samples_jsonl)
    settings = read_settings(directory.config_yaml)
    versions, version_notes = _versions(directory.versions_json)
    steps = np.asarray([row["step"] for row in rows], dtype=np.int64)
    times = np.asarray([_seconds(row.get("time")) for row in rows], dtype=np.float64)
    happened = _events(events.rows)
    if not len(metrics.rows):
        notes = (f"{directory.metrics_jsonl.name}: {_why_empty(directory.metrics_jsonl)}", *notes)
    return RunView(
        root=directory.root,
        state=state_of(
            directory,
            times=times,
            events=[(event.name, event.time, event.content) for event in happened],
            has_summary=summary is not None,
            now=read_at,
        ),
        steps=steps,
        times=times,
        stages=_stages(rows),
        metrics=_series(rows),
        events=happened,
        summary=summary,
        heldout=_heldout(samples.rows),
        records=read_records(directory.records),
        evaluated=read_records(directory.eval_current, max_samples=_MAX_EVALUATED),
        settings=settings,
        versions=versions,
        num_quarantined=len(quarantined.rows),
        warm_start=directory.warm_start.root if directory.warm_start.config_yaml.is_file() else None,
        notes=(
            *metrics.notes,
            *notes,
            *events.notes,
            *samples.notes,
            *summary_notes,
            *settings.notes,
            *version_notes,
        ),
        read_at=read_at,
    )


def _why_empty(path: Path) -> str:
    if not path.is_file():
        return "not there, so no step has been logged"
    return "empty, so no step has been logged" if path.stat().st_size == 0 else "holds no step"


def _steps(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The rows with a step, increasing: a step that was logged again counts as it was the last time."""
    kept: list[dict[str, Any]] = []
    without = 0
    for row in rows:
        step = row.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            without += 1
            continue
        while kept and kept[-1]["step"] >= step:
            kept.pop()
        kept.append(row)
    notes = (f"metrics.jsonl: {without} lines without a step were left out",) if without else ()
    return kept, notes


def _stages(rows: Sequence[dict[str, Any]]) -> tuple[Stage, ...]:
    found: list[Stage] = []
    for row in rows:
        name, step = str(row.get("stage", "")), int(row["step"])
        if found and found[-1].name == name:
            found[-1] = Stage(name=name, first=found[-1].first, last=step)
        else:
            found.append(Stage(name=name, first=step, last=step))
    return tuple(found)


def _series(rows: Sequence[dict[str, Any]]) -> dict[str, Series]:
    steps: dict[str, list[int]] = {}
    values: dict[str, list[float]] = {}
    for row in rows:
        step = row["step"]
        for name, value in row.items():
            if name in {"step", "stage", "time", "nonfinite"}:
                continue
            # A value that was not finite is null here; one that is no number at all is no curve.
            number = math.nan if value is None else value
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            steps.setdefault(name, []).append(step)
            values.setdefault(name, []).append(number if math.isfinite(number) else math.nan)
    return {
        name: Series(
            steps=np.asarray(steps[name], dtype=np.int64), values=np.asarray(values[name], dtype=np.float64)
        )
        for name in sorted(steps)
    }


def _events(rows: Sequence[dict[str, Any]]) -> tuple[Event, ...]:
    events: list[Event] = []
    for row in rows:
        content = {key: value for key, value in row.items() if key not in {"time", "event", "step"}}
        step = row.get("step")
        event = Event(
            name=str(row.get("event", "event")),
            time=_seconds(row.get("time")),
            step=step if isinstance(step, int) else None,
            content=content,
        )
        resumed_at = event.step if event.name == "resumed" else content.get("resumed_at")
        if isinstance(resumed_at, int):
            # What happened in later steps has been undone with them.
            events = [e for e in events if e.step is None or e.step <= resumed_at]
        events.append(event)
    return tuple(events)


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _summary(path: Path) -> tuple[RunSummary | None, tuple[str, ...]]:
    try:
        return RunSummary.from_json(path.read_text(encoding="utf-8")), ()
    except FileNotFoundError:
        return None, ()
    except (OSError, UnicodeDecodeError, GadError) as error:
        return None, (f"{path.name} cannot be used: {error}",)


def _heldout(rows: Sequence[dict[str, Any]]) -> tuple[SampleRow, ...]:
    samples: list[SampleRow] = []
    for row in rows:
        try:
            samples.append(_SAMPLE.validate_python(row))
        except ValidationError:
            continue
    return tuple(samples)


def _versions(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ()
    except (OSError, ValueError) as error:
        return {}, (f"{path.name} cannot be read: {error}",)
    return (content, ()) if isinstance(content, dict) else ({}, (f"{path.name} holds no mapping",))
