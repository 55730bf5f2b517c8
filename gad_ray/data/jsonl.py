"""JSON Lines in which every line counts: what cannot be read is an error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from gad_ray.errors import DataError


def rows_of(lines: Iterable[str], *, name: str) -> Iterator[Mapping[str, object]]:
    """The rows of JSONL; blank lines are passed over.

    Args:
        lines: As a file opened for reading text gives them: a U+2028 within a string does not end one.
        name: What to call the file in errors.

    Raises:
        DataError: With file and line, for what is no JSON object in UTF-8.
    """
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield row_of(line, where=f"{name}:{number}")
    except UnicodeDecodeError as error:
        raise DataError(
            "not UTF-8", where=f"{name}, after line {number}", hint="save the file as UTF-8"
        ) from error


def row_of(line: str, *, where: str) -> Mapping[str, object]:
    """The object that a line holds.

    Raises:
        DataError: If it holds none.
    """
    try:
        row: object = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON: {error.msg} at column {error.colno}", where=where, hint="write one JSON object a line"
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f"not an object but a {type(row).__name__}", where=where, hint="write one JSON object a line"
        )
    return cast("dict[str, object]", row)
