"""Rows that may carry both sides: a prompt, the teacher's answer, and perhaps a student's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, cast

from gad_ray.batch import Example, Message
from gad_ray.data.layout import Layout
from gad_ray.data.read import read_rows, unused_columns
from gad_ray.data.rows import Place, RawRow, Reason, Rejection, reject
from gad_ray.data.sources import FileInput, Input
from gad_ray.data.validate import RowValidator

STUDENT_FIELDS = ("student_response", "response", "student")
"""Names under which a row may carry a student's answer; the first one that is given counts."""

_EXTRA = (*STUDENT_FIELDS, "finish_reason", "stop_reason", "teacher_score", "student_score")
_USED = frozenset(_EXTRA)
_CUT = {"length", "max_tokens", "max_output_tokens"}
_RECORDS = b"score-records/"
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class SidedRow:
    """A usable row.

    Attributes:
        place: Where it stands.
        example: Its prompt and the teacher's answer.
        has_own_id: Whether the row names itself.
        teacher_cut: Whether the row says that the teacher's answer was cut at a token limit.
        student: A student's answer; None if the row has none.
        student_cut: Whether the row says that the student's answer was cut.
        scores: The critic's scores of teacher and student, where the row has both.
        conversions: How the row was brought to a prompt and a response.
        unused: Columns of text that neither is made of.
        of_run: Whether it is a record of a run, which asks a prompt several times and in every epoch.
    """

    place: Place
    example: Example
    has_own_id: bool
    teacher_cut: bool = False
    student: str | None = None
    student_cut: bool = False
    scores: tuple[float, float] | None = None
    conversions: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    of_run: bool = False


def read_sided_rows(source: Input, layout: Layout) -> Iterator[SidedRow | Rejection]:
    """Stream the rows of one input, those that training would not use as rejections.

    A run's score records are read too: their prompts are conversations written as JSON.

    Raises:
        DataError: As ``gad_ray.data.read.read_rows``.
    """
    validator = RowValidator(
        max_prompt_tokens=_NO_LIMIT,
        max_teacher_tokens=_NO_LIMIT,
        count_prompt_tokens=_no_tokens,
        count_response_tokens=len,
        layout=layout,
    )
    records = _holds_records(source)
    for raw in read_rows(source, extra_columns=_EXTRA, mapped=layout.columns.keys()):
        if isinstance(raw, Rejection):
            yield raw
        else:
            yield _sided(_unpacked(raw) if records else raw, validator, of_run=records)


def _no_tokens(_: tuple[Message, ...]) -> int:
    return 0


def _holds_records(source: Input) -> bool:
    if not isinstance(source, FileInput) or source.path.suffix != ".parquet":
        return False
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    try:
        metadata: Mapping[bytes, bytes] = parquet.read_schema(source.path).metadata or {}
    except (OSError, arrow.ArrowException):  # said better by the reader of rows
        return False
    return metadata.get(b"gad_ray.format", b"").startswith(_RECORDS)


def _unpacked(row: RawRow) -> RawRow:
    """A record with its conversation as messages; as it is if that is no JSON, for the validator to judge."""
    try:
        messages: object = json.loads(str(row.fields.get("prompt")))
    except ValueError:
        return row
    return replace(row, fields={**row.fields, "prompt": messages})


def _sided(raw: RawRow, validator: RowValidator, *, of_run: bool) -> SidedRow | Rejection:
    valid = validator.check(raw)
    if isinstance(valid, Rejection):
        return valid
    field, student = _student_of(raw.fields)
    if student is not None and not isinstance(student, str):
        return reject(raw, Reason.NOT_TEXT, f"{field} is a {type(student).__name__}, not a string")
    return SidedRow(
        place=valid.place,
        example=valid.example,
        has_own_id=valid.has_own_id,
        teacher_cut=_is_cut(raw.fields, ("finish_reason",))
        or valid.example.meta.get("finish_reason") in _CUT,
        student=student,
        student_cut=_is_cut(raw.fields, ("stop_reason",)),
        scores=_scores_of(raw.fields),
        conversions=valid.conversions,
        unused=()
        if of_run
        else tuple(n for n in unused_columns(raw) if n not in _USED and n not in validator.layout.columns),
        of_run=of_run,
    )


def _student_of(fields: Mapping[str, object]) -> tuple[str, object]:
    return next(((name, fields[name]) for name in STUDENT_FIELDS if fields.get(name) is not None), ("", None))


def _is_cut(fields: Mapping[str, object], names: Sequence[str]) -> bool:
    return any(str(fields.get(name)) in _CUT for name in names)


def _scores_of(fields: Mapping[str, object]) -> tuple[float, float] | None:
    scores = [fields.get(name) for name in ("teacher_score", "student_score")]
    if not all(isinstance(score, int | float) and score == score for score in scores):
        return None
    teacher, student = cast("list[float]", scores)
    return float(teacher), float(student)
