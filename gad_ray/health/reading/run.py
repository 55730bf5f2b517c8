"""A run of ours: its metrics, with the configuration that they come from."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gad_ray.config import RunConfig, load_config
from gad_ray.errors import ConfigError, DataError
from gad_ray.health.facts import NO_FACTS, RunFacts, facts_of
from gad_ray.health.history import History, Note, Row
from gad_ray.health.reading.rows import ReadLog, assemble
from gad_ray.health.reading.text import read_text
from gad_ray.health.signals import step_seconds
from gad_ray.observability.jsonl import read_lines
from gad_ray.observability.run_dir import RunDirectory

_SHORTEST_STALL_S = 60.0


def read_run(directory: RunDirectory, *, stage: str | None) -> History:
    """Read a run, finished or not.

    Raises:
        DataError: If it has logged no step, or its metrics cannot be read.
    """
    path = directory.metrics_jsonl
    if not path.is_file() or path.stat().st_size == 0:
        raise _no_step(directory)
    _, log = read_text(path)
    rows, numbered, notes = assemble(log, where=str(path), stage=stage)
    config = read_config(directory.config_yaml)
    waited, state = _state(directory, rows, log)
    return History(
        place=str(directory.root),
        kind="run",
        rows=rows,
        numbered=numbered,
        facts=own_facts(config, rows),
        config=config,
        waited_s=waited,
        notes=(*([state] if state else []), *log.notes, *notes),
    )


def read_config(path: Path) -> RunConfig | None:
    """A run's configuration; None if it is not readable any more, such as that of another version."""
    try:
        return load_config(str(path))
    except ConfigError:
        return None


def own_facts(config: RunConfig | None, rows: Sequence[Row]) -> RunFacts:
    """What a run's configuration and its rows tell."""
    if config is None:
        return NO_FACTS
    return facts_of(config, steps_per_epoch=_steps_per_epoch(rows))


def _steps_per_epoch(rows: Sequence[Row]) -> int | None:
    """How many steps take the prompts once around, by how far the rows came."""
    drawn = [(row.step, row.metrics["data/epoch"]) for row in rows if "data/epoch" in row.metrics]
    if len(drawn) < 2 or drawn[-1][1] <= drawn[0][1]:
        return None
    (first, before), (last, after) = drawn[0], drawn[-1]
    return max(1, round((last - first) / (after - before)))


def _state(directory: RunDirectory, rows: Sequence[Row], log: ReadLog) -> tuple[float | None, Note | None]:
    """Seconds since the last step of a run that has not ended, and what is to be said of it."""
    metrics, summary = directory.metrics_jsonl, directory.summary_json
    if summary.is_file() and summary.stat().st_mtime >= metrics.stat().st_mtime:
        return None, None
    step = rows[-1].step
    end = _last_event(directory)
    if end.get("event") == "stopped":
        return None, Note.of("stopped", step=step)
    if end.get("event") == "failed":
        return None, Note.of("failed", step=step, reason=_reason(end))
    waited = max(0.0, time.time() - (log.last_time or metrics.stat().st_mtime))
    paces = [seconds for row in rows[-20:] if (seconds := step_seconds(row.metrics)) is not None]
    patience = max(_SHORTEST_STALL_S, 5 * statistics.median(paces) if paces else 0.0)
    if waited <= patience:
        return waited, Note.of("still-going", step=step)
    return waited, Note.of("broken-off", step=step, seconds=f"{waited:.0f}")


def _last_event(directory: RunDirectory) -> dict[str, Any]:
    """What happened last besides the steps, empty if nothing did."""
    rows = read_lines(directory.events_jsonl).rows
    return rows[-1] if rows else {}


def _reason(end: dict[str, Any]) -> str:
    return str(end.get("error") or "-").splitlines()[0]


def _no_step(directory: RunDirectory) -> DataError:
    logs = (
        sorted(directory.logs.glob("*"), key=lambda path: path.stat().st_mtime)
        if directory.logs.is_dir()
        else []
    )
    newest = f"read {logs[-1]} for why" if logs else "start it again and read what it prints"
    end = _last_event(directory)
    state = (
        f"it failed at step 0: {_reason(end)}"
        if end.get("event") == "failed"
        else "it is still starting, or it died at step 0"
    )
    return DataError(
        f"the run has logged no step: {state}",
        where=str(directory.root),
        hint=f"wait if it is still going; else {newest}",
    )
