"""The number that a curriculum goes by, as it comes with the rows: what is wrong with it, and which are within bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gad_ray.config.curriculum import DifficultyCurriculum
from gad_ray.data.quarantine import QuarantineReport
from gad_ray.data.rows import Reason
from gad_ray.data.validate import ValidRow
from gad_ray.errors import DataError

_SHOWN_CHARACTERS = 40


def _number_of(value: object) -> float | None:
    """A number, also one written as text: ``meta`` in Parquet is often a map of texts."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def difficulty_flaw(row: ValidRow, curriculum: DifficultyCurriculum) -> str | None:
    """What is wrong with a row's difficulty; None if it is a finite number."""
    value = row.difficulty
    if value is None:
        return f"there is neither a field {curriculum.column!r} nor such a key of meta"
    number = _number_of(value)
    if number is None:
        shown = repr(value)[:_SHOWN_CHARACTERS]
        return f"{curriculum.column} is a {type(value).__name__}, {shown}, not a number"
    if not math.isfinite(number):
        return f"{curriculum.column} is {number}, not a finite number"
    return None


def refuse_missing_difficulty(report: QuarantineReport, curriculum: DifficultyCurriculum) -> None:
    """Raise if rows were found that have no difficulty.

    Raises:
        DataError: With their number and the first of them.
    """
    if found := report.examples.get(Reason.NO_DIFFICULTY):
        count = report.counts[Reason.NO_DIFFICULTY]
        told = "; ".join(f"{rejection.place}: {rejection.detail}" for rejection in found)
        more = f"; and {count - len(found)} more" if count > len(found) else ""
        raise DataError(
            f"data.curriculum.column = {curriculum.column!r}, and {count} rows have no such number: {told}{more}",
            where=str(report.path),
            hint="give them one, name another column, or leave them out with data.curriculum.missing=quarantine",
        )


def within_bounds(
    rows: Sequence[ValidRow], curriculum: DifficultyCurriculum
) -> tuple[list[ValidRow], tuple[float, ...]]:
    """The rows whose difficulty is within the bounds, and their difficulties.

    Args:
        rows: Rows with a difficulty each; at least one.
        curriculum: The bounds.

    Raises:
        DataError: If there are none.
    """
    values = [number for row in rows if (number := _number_of(row.difficulty)) is not None]
    low = -math.inf if curriculum.min is None else curriculum.min
    high = math.inf if curriculum.max is None else curriculum.max
    kept = [i for i, value in enumerate(values) if low <= value <= high]
    if not kept:
        given = (("min", curriculum.min), ("max", curriculum.max))
        bounds = " and ".join(
            f"data.curriculum.{key} = {value:g}" for key, value in given if value is not None
        )
        raise DataError(
            f"{bounds} leave none of {len(rows)} rows: {curriculum.column!r} runs from {min(values):g} to "
            f"{max(values):g}",
            hint="widen the bounds",
        )
    return [rows[i] for i in kept], tuple(values[i] for i in kept)
