"""Streams of raw rows from Parquet, JSONL and the hub. What is wrong with one row never stops the others.

A row that cannot be read becomes a :class:`Rejection`; a file that cannot be read is a :class:`DataError`.
pyarrow and datasets have no type stubs, so they are imported here by name and nowhere else.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from gad_ray.data.layout import CONVERSATION_FIELD, PROMPT_FIELDS, RESPONSE_FIELD, read_columns
from gad_ray.data.rows import Place, RawRow, Reason, Rejection, excerpt_of
from gad_ray.data.sources import SUFFIXES, FileInput, HubInput, Input
from gad_ray.errors import DataError

_KNOWN_FIELDS = frozenset({"id", "meta"})
_MAX_LINE_BYTES = 64 * 2**20
_PARQUET_BATCH_ROWS = 512
_TEXT_TYPES = frozenset({"string", "large_string", "string_view"})
_CONVERSION_ERRORS = (ValueError, LookupError, ArithmeticError)
"""What pyarrow raises for a value that Python cannot hold: broken UTF-8, a key given twice, a date out of range."""


def read_rows(
    source: Input, *, extra_columns: Iterable[str] = (), mapped: Collection[str] = ()
) -> Iterator[RawRow | Rejection]:
    """Stream the rows of one input.

    Args:
        source: A file, or a data set on the hub.
        extra_columns: Columns to read besides those that every row is made of, where they are there.
        mapped: Columns that may stand for a prompt or a response.

    Raises:
        DataError: If the input as a whole cannot be read: missing, truncated, of an unknown kind, without
            the columns a row needs, or on a hub that is not reachable.
    """
    match source:
        case HubInput():
            return _read_hub(source)
        case FileInput(path=path) if path.suffix == ".parquet":
            return _read_parquet(path, tuple(extra_columns), mapped)
        case FileInput(path=path) if path.suffix == ".jsonl":
            return _read_jsonl(path)
        case FileInput(path=path):
            raise DataError(
                f"its kind is unknown: {path.suffix or 'no suffix'!r}",
                where=str(path),
                hint=f"data are read from {' and '.join(SUFFIXES)}",
            )


def unused_columns(row: RawRow) -> list[str]:
    """Columns of text that no prompt or response is made of: not read at all, or passed over."""
    known = read_columns(_KNOWN_FIELDS)
    passed = [
        name for name, value in row.fields.items() if name not in known and isinstance(value, str) and value
    ]
    return [*row.unread, *passed]


# --- JSONL


def _read_jsonl(path: Path) -> Iterator[RawRow | Rejection]:
    try:
        with path.open("rb") as file:
            for number, line in _lines(file):
                place = Place(file=str(path), number=number)
                if len(line) > _MAX_LINE_BYTES:
                    detail = f"the line is longer than {_MAX_LINE_BYTES} bytes"
                    yield _broken(place, Reason.LINE_TOO_LONG, detail, line)
                elif line.strip():
                    yield _parse_line(place, line)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", where=str(path), hint="check the path"
        ) from error


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line; of a line over the limit only the beginning, one byte over it."""
    number = 0
    while line := file.readline(_MAX_LINE_BYTES + 1):
        number += 1
        yield number, line
        rest = line
        while len(rest) > _MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(_MAX_LINE_BYTES + 1)


def _parse_line(place: Place, line: bytes) -> RawRow | Rejection:
    if line.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _broken(
            place, Reason.BYTE_ORDER_MARK, "the line begins with a byte order mark; save as plain UTF-8", line
        )
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte {line[error.start]:#04x} at position {error.start} of the line is not UTF-8"
        return _broken(place, Reason.INVALID_UTF8, detail, line)
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object_of_distinct_keys)
    except json.JSONDecodeError as error:
        return _broken(place, Reason.INVALID_JSON, f"{error.msg} at character {error.pos} of the line", line)
    except (ValueError, RecursionError) as error:
        return _broken(place, Reason.INVALID_JSON, str(error), line)
    if not isinstance(value, dict):
        return _broken(
            place, Reason.NOT_AN_OBJECT, f"the line holds a {type(value).__name__}, not an object", line
        )
    if "\\u" in text and (surrogate := _lone_surrogate(value)):
        return _broken(place, Reason.LONE_SURROGATE, f"\\u{ord(surrogate):04x} stands alone", line)
    return RawRow(place=place, fields=cast("dict[str, object]", value))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _object_of_distinct_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return fields


def _lone_surrogate(value: object) -> str:
    """The first surrogate within a JSON value that is not part of a pair; empty if there is none."""
    pending = [value]
    while pending:  # not by recursion: JSON may nest deeper than Python's stack
        item = pending.pop()
        if isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError as error:
                return item[error.start]
        elif isinstance(item, dict):
            for key, inner in cast("dict[str, object]", item).items():
                pending += [key, inner]
        elif isinstance(item, list):
            pending += cast("list[object]", item)
    return ""


def _broken(place: Place, reason: Reason, detail: str, line: bytes) -> Rejection:
    return Rejection(place=place, reason=reason, detail=detail, excerpt=excerpt_of(line.rstrip(b"\r\n")))


# --- Parquet


def _read_parquet(
    path: Path, extra_columns: Collection[str], mapped: Collection[str]
) -> Iterator[RawRow | Rejection]:
    parquet: Any = import_module("pyarrow.parquet")
    arrow: Any = import_module("pyarrow")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            columns = _columns_to_read(path, names, extra_columns, mapped)
            texts = [name for name in names if str(file.schema_arrow.field(name).type) in _TEXT_TYPES]
            unread = tuple(name for name in texts if name not in columns)
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=columns):
                for fields in _rows_of_batch(batch):
                    number += 1
                    place = Place(file=str(path), number=number)
                    if isinstance(fields, Exception):
                        yield _unreadable(place, fields)
                    else:
                        yield RawRow(place=place, fields=fields, unread=unread)
    except (OSError, arrow.ArrowException) as error:
        after = f" after row {number}" if number else ""
        raise DataError(
            f"cannot be read as Parquet{after}: {str(error).splitlines()[0]}",
            where=str(path),
            hint="the file is missing, empty, cut off or not Parquet: write or copy it again",
        ) from error


def _columns_to_read(
    path: Path, names: Sequence[str], extra: Collection[str], mapped: Collection[str]
) -> list[str]:
    """The columns that a row is made of; any other is never loaded.

    Raises:
        DataError: If the prompt or the response has no column, which would reject every single row.
    """
    # A mapped column, a conversation or an instruction may stand for either; rows tell then what they lack.
    stands_in = {CONVERSATION_FIELD, "instruction", *mapped}
    for wanted in (PROMPT_FIELDS, (RESPONSE_FIELD,)):
        if not {*wanted, *stands_in} & set(names):
            near = [match for field in wanted for match in get_close_matches(field, names, n=1)]
            raise DataError(
                f"there is no column {' or '.join(map(repr, wanted))}; it has {', '.join(map(repr, names)) or 'none'}",
                where=str(path),
                hint=f"rename {near[0]!r}" if near else "rename the column that holds it",
            )
    known = read_columns({*_KNOWN_FIELDS, *extra, *mapped})
    return [name for name in names if name in known]


def _rows_of_batch(batch: Any) -> list[dict[str, object] | Exception]:
    """The rows of an Arrow batch; where one has no Python value (a string that is not UTF-8), what is wrong with it."""
    try:
        return batch.to_pylist(maps_as_pydicts="strict")
    except _CONVERSION_ERRORS:  # some row is to blame: find out which, and keep the others
        return [_row_or_error(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _row_or_error(batch_of_one: Any) -> dict[str, object] | Exception:
    try:
        return batch_of_one.to_pylist(maps_as_pydicts="strict")[0]
    except _CONVERSION_ERRORS as error:
        return error


def _unreadable(place: Place, error: Exception) -> Rejection:
    if isinstance(error, UnicodeDecodeError):
        detail = f"byte {error.object[error.start]:#04x} at position {error.start} of a text is not UTF-8"
        return Rejection(
            place=place, reason=Reason.INVALID_UTF8, detail=detail, excerpt=excerpt_of(error.object)
        )
    return Rejection(place=place, reason=Reason.UNREADABLE_VALUE, detail=str(error), excerpt="")


# --- The hub


def _read_hub(source: HubInput) -> Iterator[RawRow | Rejection]:
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise DataError(
            "data sets on the hub are read through the package 'datasets', which is not installed",
            where=source.name,
            hint="pip install datasets, or name local files",
        ) from error
    number = 0
    try:
        rows = datasets.load_dataset(source.repo, split=source.split, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield RawRow(
                place=Place(file=source.name, number=number), fields=cast("Mapping[str, object]", row)
            )
    # datasets, its HTTP client and its file readers each raise errors of their own, too many to list.
    except Exception as error:
        after = f" after row {number}" if number else ""
        raise DataError(
            f"cannot be read{after}: {type(error).__name__}: {error}",
            where=source.name,
            hint="check the name, the split, and that the hub can be reached from here; or download it and name its files",
        ) from error
