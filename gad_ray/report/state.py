"""How far a run has come, as far as its files can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gad_ray.observability.run_dir import RunDirectory

_SILENT_AFTER_S = 900.0
"""A model may take as long to load: before that, silence means nothing."""

_SILENT_AFTER_STEPS = 5.0
"""No step for five times the median step is a stall."""


class Condition(StrEnum):
    """How a run stands."""

    FINISHED = "finished"
    GOING = "still going"
    STOPPED = "stopped"
    FAILED = "failed"
    SILENT = "no sign of life"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """How a run stands, and a sentence on it."""

    condition: Condition
    text: str


def state_of(
    directory: RunDirectory,
    *,
    times: NDArray[np.float64],
    events: Sequence[tuple[str, float | None, Mapping[str, Any]]],
    has_summary: bool,
    now: float,
) -> RunState:
    """Tell how a run stands.

    Args:
        directory: The run's.
        times: [S] Unix seconds at which its steps were logged.
        events: Name, Unix seconds and content of what happened.
        has_summary: Whether the account of its end could be read.
        now: Unix seconds.
    """
    known = times[np.isfinite(times)]
    last_step = float(known[-1]) if len(known) else 0.0
    done = f"after {len(times)} steps" if len(times) != 1 else "after 1 step"
    if not len(times):
        done = "before its first step"
    if has_summary and _written(directory.summary_json) >= last_step:
        return RunState(condition=Condition.FINISHED, text=f"came to its end {done}")
    end = _end(events, since=last_step)
    if end is not None:
        name, content = end
        if name == "stopped":
            rules = content.get("rules")
            by = f"the health rules {', '.join(map(str, rules))}" if isinstance(rules, list) else "a signal"
            return RunState(
                condition=Condition.STOPPED,
                text=f"stopped by {by} {done}; it can be continued with --resume",
            )
        # The rest of a long error stands where all that happened does.
        reason = str(content.get("error") or "no reason is known").splitlines()[0]
        return RunState(condition=Condition.FAILED, text=f"failed {done}: {reason}")
    signs = [last_step, *(t for _, t, _ in events if t is not None and np.isfinite(t))]
    signs += [_written(path) for path in (directory.config_yaml, directory.metrics_jsonl)]
    silence = max(0.0, now - max(signs))
    pace = float(np.median(np.diff(known))) if len(known) > 1 else 0.0
    if silence <= max(_SILENT_AFTER_S, _SILENT_AFTER_STEPS * pace):
        return RunState(condition=Condition.GOING, text=f"still going {done}, as of this report")
    return RunState(
        condition=Condition.SILENT,
        text=f"ended without a word {done}: no sign of life for {_span(silence)} when this report was written",
    )


def _end(
    events: Sequence[tuple[str, float | None, Mapping[str, Any]]], *, since: float
) -> tuple[str, Mapping[str, Any]] | None:
    """The event that ended the run, if nothing has happened after it."""
    ends = [(name, content) for name, at, content in events if at is None or not at < since]
    return ends[-1] if ends and ends[-1][0] in {"stopped", "failed"} else None


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _span(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
