"""What JSON holds of our values, and JSON Lines of a run that may still be writing them, or may have died."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The objects of a file, and what could not be read of it.

    Attributes:
        rows: The objects, in order.
        notes: What was left out, for a reader.
    """

    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def read_lines(path: Path) -> Lines:
    """Read what can be read of a JSON Lines file; one that is not there has no rows."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Lines(rows=(), notes=())
    except OSError as error:
        return Lines(rows=(), notes=(f"{path.name} cannot be read: {error.strerror}",))
    rows: list[dict[str, Any]] = []
    bad: list[int] = []
    pieces = content.split(b"\n")
    for number, piece in enumerate(pieces, start=1):
        if not piece.strip():
            continue
        row = _object(piece)
        if row is None:
            bad.append(number)
        else:
            rows.append(row)
    notes: list[str] = []
    if bad and bad[-1] == len(pieces):
        # No line break follows: the run is writing it, or died while it did.
        bad.pop()
        notes.append(f"{path.name}: the last line is cut short and was left out")
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        what = "line is no JSON object and was" if len(bad) == 1 else "lines are no JSON objects and were"
        notes.append(f"{path.name}: {len(bad)} {what} left out (line {shown})")
    return Lines(rows=tuple(rows), notes=tuple(notes))


def _object(piece: bytes) -> dict[str, Any] | None:
    try:
        row: object = json.loads(piece)
    except ValueError:
        return None
    return cast("dict[str, Any]", row) if isinstance(row, dict) else None


def json_values(value: object) -> Any:
    """The same in values that JSON knows: mappings, lists, and null for a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): json_values(inner) for key, inner in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [json_values(inner) for inner in cast("list[object]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
