"""A run's score records: figures of many steps, and a bounded number of rows to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gad_ray.observability.records import record_files

MAX_STEPS = 200
"""Steps whose records are read, spread over the run: what a report costs does not grow with the run."""

MAX_SAMPLES = 300
"""Rows that a reader can look at."""

_FIGURES = ("example_id", "teacher_score", "student_score", "response_tokens", "stop_reason")
_TEXTS = ("prompt", "teacher_response", "student_response")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was read of the records.

    Attributes:
        num_steps: Steps that have records.
        steps: [R] int64 step of each row that was read.
        groups: [R] int64 number that the rows of one prompt in one step share.
        teacher: [R] float64 teacher's scores.
        student: [R] float64 student's scores.
        tokens: [R] int64 length of the student's response.
        cut: [R] whether it was cut at the token limit.
        samples: Some of the rows, whole, by column name.
        notes: What could not be read.
    """

    num_steps: int
    steps: NDArray[np.int64]
    groups: NDArray[np.int64]
    teacher: NDArray[np.float64]
    student: NDArray[np.float64]
    tokens: NDArray[np.int64]
    cut: NDArray[np.bool_]
    samples: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.steps)


def read_records(directory: Path, *, max_samples: int = MAX_SAMPLES) -> Recorded:
    """Read the records of at most :data:`MAX_STEPS` steps, the first and the last among them.

    Args:
        directory: Where the files lie.
        max_samples: Rows that are kept whole.
    """
    files = record_files(directory)
    chosen = [files[i] for i in spread(len(files), MAX_STEPS)]
    parts: list[dict[str, NDArray[Any]]] = []
    samples: list[dict[str, Any]] = []
    broken: list[str] = []
    num_groups = 0
    for number, (step, path) in enumerate(chosen):
        try:
            # The path itself: a name given as text would be looked up as part of a larger data set.
            table = pq.ParquetFile(path).read()
            figures = _figures(table)
        except (OSError, pa.ArrowInvalid, pa.ArrowKeyError, KeyError) as error:
            broken.append(f"{path.name} ({str(error).splitlines()[0][:120]})")
            continue
        figures["steps"] = np.full(table.num_rows, step, dtype=np.int64)
        figures["groups"] += num_groups
        num_groups += int(table.num_rows)
        parts.append(figures)
        # So many of each that all together are as many as may be.
        count = (number + 1) * max_samples // len(chosen) - number * max_samples // len(chosen)
        samples += _samples(table, step=step, count=count, turn=number)
    notes = ()
    if broken:
        more = f", and {len(broken) - 3} more" if len(broken) > 3 else ""
        notes = (f"score records that cannot be read were left out: {', '.join(broken[:3])}{more}",)
    return _joined(parts, num_steps=len(files), samples=samples, notes=notes)


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of ``count`` indices, evenly spread, the first and the last among them."""
    if count <= limit:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, limit).round()]


def _figures(table: Any) -> dict[str, NDArray[Any]]:
    for name in (*_FIGURES, *_TEXTS):
        if name not in table.column_names:
            raise KeyError(f"no column {name}")
    _, groups = np.unique(np.asarray(table["example_id"].to_pylist(), dtype=str), return_inverse=True)
    reasons = np.asarray(table["stop_reason"].to_pylist(), dtype=str)
    return {
        "groups": groups.astype(np.int64),
        "teacher": table["teacher_score"].to_numpy().astype(np.float64),
        "student": table["student_score"].to_numpy().astype(np.float64),
        "tokens": table["response_tokens"].to_numpy().astype(np.int64),
        "cut": reasons == "length",
    }


def _samples(table: Any, *, step: int, count: int, turn: int) -> list[dict[str, Any]]:
    """``count`` rows: those with values per token first, then from all over the step, others every time."""
    size = table.num_rows
    if not size:
        return []
    with_values: list[int] = []
    if "student_values" in table.column_names:
        with_values = np.flatnonzero(table["student_values"].is_valid().to_numpy()).tolist()
    all_over = [*spread(size, min(count, size)), *range(size)]
    order = list(dict.fromkeys([*with_values, *((turn + i) % size for i in all_over)]))
    rows = cast("list[dict[str, Any]]", table.take(sorted(order[:count])).to_pylist())
    return [{**row, "step": step} for row in rows]


def _joined(
    parts: Sequence[dict[str, NDArray[Any]]],
    *,
    num_steps: int,
    samples: Sequence[dict[str, Any]],
    notes: tuple[str, ...],
) -> Recorded:
    def column(name: str, dtype: Any) -> NDArray[Any]:
        return np.concatenate([np.zeros(0, dtype=dtype), *(part[name] for part in parts)])

    return Recorded(
        num_steps=num_steps,
        steps=column("steps", np.int64),
        groups=column("groups", np.int64),
        teacher=column("teacher", np.float64),
        student=column("student", np.float64),
        tokens=column("tokens", np.int64),
        cut=column("cut", np.bool_),
        samples=tuple(samples),
        notes=notes,
    )
