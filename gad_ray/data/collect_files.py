"""The files of a collection: prompts in, an fsynced journal beside the output, pairs and rejects out."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self, cast

from gad_ray.data.jsonl import row_of
from gad_ray.data.layout import BESIDE_FIELDS, LayoutError, unstored
from gad_ray.errors import DataError

Content = str | list[dict[str, str]]
Table = Any
"""A ``pyarrow.Table``; pyarrow ships no types."""
Status = Literal["ok", "cut", "empty", "refused", "unreadable", "failed"]

RESERVED_META = frozenset(
    {
        "teacher",
        "model",
        "temperature",
        "top_p",
        "max_tokens",
        "seed",
        "system_prompt",
        "finish_reason",
        "collected_at",
        "tool",
    }
)
_CONTENT_KEYS = ("content", "prompt", "messages")
_ROLES = frozenset({"system", "user", "assistant"})
_JOURNAL_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """One prompt to be answered; ``extra`` holds the input row's other keys."""

    id: str
    content: Content
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one prompt: the journal's line.

    ``status`` is ``ok``, or why the row is kept out: ``cut`` at max_tokens, ``empty``, ``refused`` by the
    endpoint's own filter or turned into a tool call, ``unreadable`` where the reply is no chat completion, ``failed``
    for good (retried by the next call).
    """

    id: str
    status: Status
    response: str
    finish_reason: str | None
    model: str
    reason: str
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    collected_at: str


def read_prompts(path: Path) -> list[PromptRow]:
    """Read JSONL prompts: ``{"id"?, "content", …}``; ``prompt`` or ``messages`` do for ``content``.

    A row without ``id`` gets one from its content's SHA-256.

    Raises:
        DataError: A file that cannot be read or holds no row, or a row that cannot be used (with file and
            line): not a JSON object, no content, malformed messages, an id that is there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read prompts: {error}", where=str(path), hint="name a UTF-8 JSONL file"
        ) from error
    rows: list[PromptRow] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _parse_prompt(line, where=f"{path}:{number}")
        if row.id in first_line:
            raise DataError(
                f"id {row.id!r} is already on line {first_line[row.id]}",
                where=f"{path}:{number}",
                hint="give every row an id of its own; rows without id must differ in content",
            )
        first_line[row.id] = number
        rows.append(row)
    if not rows:
        raise DataError("no prompts in the file", where=str(path), hint='write one {"content": …} a line')
    return rows


def _parse_prompt(line: str, *, where: str) -> PromptRow:
    row = row_of(line, where=where)
    keys = [key for key in _CONTENT_KEYS if key in row]
    if len(keys) != 1:
        found = ", ".join(keys) or f"none, only {', '.join(sorted(row)) or 'an empty object'}"
        raise DataError(f"needs exactly one of content, prompt, messages; found {found}", where=where)
    content = _check_content(row[keys[0]], key=keys[0], where=where)
    row_id = row.get("id")
    if row_id is None:
        row_id = sha256_of(content)[:16]
    if isinstance(row_id, int) and not isinstance(row_id, bool) and abs(row_id) < 2**63:
        row_id = str(row_id)
    if not isinstance(row_id, str) or not row_id:
        raise DataError(
            f"id is {row_id!r:.80}", where=where, hint="an id is a non-empty string or an integer of 64 bits"
        )
    extra = {key: value for key, value in row.items() if key not in ("id", keys[0])}
    for key, value in extra.items():
        if key in BESIDE_FIELDS and value not in (None, "", [], {}):
            raise DataError(
                f"{key} stands beside the prompt, and the teacher would not see it",
                where=where,
                hint="write it into messages, or rename the key if it is only to be kept",
            )
    clash = sorted(RESERVED_META.intersection(extra))
    if clash:
        raise DataError(
            f"the key {clash[0]!r} is written by the collection itself",
            where=where,
            hint="rename it in the input",
        )
    return PromptRow(id=row_id, content=content, extra=extra)


def _check_content(value: object, *, key: str, where: str) -> Content:
    if isinstance(value, str):
        _check_text(value, key=key, where=where)
        try:
            stored = unstored(key, value, [])
        except LayoutError as error:
            raise DataError(
                error.detail, where=where, hint="write messages as a JSON list, not as text"
            ) from None
        if stored is value:
            return value
        raise DataError(
            f"{key} is a conversation stored as text",
            where=where,
            hint="write it as a JSON list of messages: the teacher would be asked for the text as it stands",
        )
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{key} is {value!r:.80}", where=where, hint="give text, or a list of {role, content} messages"
        )
    messages: list[dict[str, str]] = []
    for index, item in enumerate(cast(list[object], value)):
        message = cast(dict[str, object], item) if isinstance(item, dict) else {}
        role, text = message.get("role"), message.get("content")
        if set(message) != {"role", "content"} or role not in _ROLES or not isinstance(text, str):
            raise DataError(
                f"{key}[{index}] is {item!r:.80}",
                where=where,
                hint="a message is {role, content}, role one of system, user, assistant",
            )
        _check_text(text, key=f"{key}[{index}].content", where=where)
        messages.append({"role": cast(str, role), "content": text})
    if messages[-1]["role"] != "user":
        raise DataError(
            f"the last message is from {messages[-1]['role']}",
            where=where,
            hint="end with the user's message that the teacher is to answer",
        )
    return messages


def _check_text(text: str, *, key: str, where: str) -> None:
    if not text.strip():
        raise DataError(f"{key} is empty", where=where)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # json.loads accepts "\ud800", which neither an HTTP body nor Parquet can carry.
        raise DataError(f"{key} holds a lone surrogate at character {error.start}", where=where) from error


def sha256_of(value: object) -> str:
    """SHA-256 (hex) of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def prompts_sha256(rows: Iterable[PromptRow]) -> str:
    """SHA-256 over ids, contents and extra keys, in order."""
    return sha256_of([[row.id, row.content, dict(row.extra)] for row in rows])


class Journal:
    """An append-only JSONL file: one header, then one fsynced line for every answer.

    Args:
        path: Where it lies. Made if missing, else continued.
        request: What decides the answers (model, system prompt, sampling). A journal that was made with
            another request or other prompts is refused.
        rows: The prompts.

    Raises:
        DataError: The journal is another collection's, damaged, or being written by another process.
    """

    def __init__(self, path: Path, *, request: Mapping[str, Any], rows: list[PromptRow]) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("a+b")
        try:
            self._lock()
            self._load_or_start(
                {
                    "journal": _JOURNAL_VERSION,
                    "request": dict(request),
                    "request_sha256": sha256_of(dict(request)),
                    "prompts_sha256": prompts_sha256(rows),
                }
            )
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def append(self, answer: Answer) -> None:
        """Record one answer; it survives a crash of the machine once this returns."""
        self._write(asdict(answer))
        self.answers[answer.id] = answer

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                "another process is collecting into this journal", where=str(self.path), hint="wait for it"
            ) from error

    def _load_or_start(self, header: Mapping[str, Any]) -> None:
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)  # the line that was being written when the last call broke off
        lines = data[:whole].splitlines()
        if not lines:
            self._write(header)
            return
        found = self._parse(lines[0], 1)
        if found.get("journal") != _JOURNAL_VERSION:
            raise DataError(f"not a journal of version {_JOURNAL_VERSION}", where=f"{self.path}:1")
        self._refuse_other_collection(found, header)
        for number, line in enumerate(lines[1:], start=2):
            try:
                answer = Answer(**self._parse(line, number))
            except TypeError as error:
                raise self._damaged(number, str(error)) from error
            self.answers[answer.id] = answer

    def _refuse_other_collection(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        differing: list[str] = []
        if found.get("request_sha256") != wanted["request_sha256"]:
            old = cast(dict[str, Any], found.get("request") or {})
            new = cast(dict[str, Any], wanted["request"])
            differing += [
                f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
                for key in sorted(old.keys() | new.keys())
                if old.get(key) != new.get(key)
            ] or ["the request's hash"]
        if found.get("prompts_sha256") != wanted["prompts_sha256"]:
            differing.append("the prompts are others")
        if differing:
            raise DataError(
                f"the journal belongs to another collection: {'; '.join(differing)}",
                where=str(self.path),
                hint="use the same settings and prompts to continue, or another --out to begin anew",
            )

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value: object = json.loads(line)
        except ValueError as error:
            raise self._damaged(number, str(error)) from error
        if not isinstance(value, dict):
            raise self._damaged(number, "not an object")
        return cast(dict[str, Any], value)

    def _damaged(self, number: int, why: str) -> DataError:
        return DataError(
            f"damaged journal line: {why}",
            where=f"{self.path}:{number}",
            hint="delete that line; its prompt is asked again",
        )


def write_pairs(
    path: Path, pairs: Iterable[tuple[PromptRow, str, Mapping[str, Any]]], *, as_chat: bool = False
) -> int:
    """Write ``(prompt, response, meta)`` as Parquet, atomically; returns the number of rows.

    Columns: ``id``, ``content`` (a string; chat messages in every row where any row has messages, or with ``as_chat``),
    ``teacher_response``, ``meta`` (a struct; see ``_meta_column``).
    """
    import pyarrow as pa

    rows = list(pairs)
    contents: list[Any] = [prompt.content for prompt, _, _ in rows]
    content_type = pa.string()
    if as_chat or not all(isinstance(content, str) for content in contents):
        contents = [as_messages(content) for content in contents]
        content_type = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    columns = {
        "id": pa.array([prompt.id for prompt, _, _ in rows], pa.string()),
        "content": pa.array(contents, content_type),
        "teacher_response": pa.array([response for _, response, _ in rows], pa.string()),
        "meta": _meta_column([meta for _, _, meta in rows]),
    }
    write_table(path, pa.table(columns))
    return len(rows)


def _meta_column(metas: list[Mapping[str, Any]]) -> Any:
    """A struct with a field for every key that has a value anywhere.

    Prompts may carry any JSON under any key, Parquet one type a field: values that are no scalars, or do not
    agree on a type, are kept as JSON text.
    """
    import pyarrow as pa

    keys = sorted({key for meta in metas for key, value in meta.items() if value is not None})
    fields: list[Any] = []
    for key in keys:
        values = [meta.get(key) for meta in metas]
        try:
            if any(isinstance(value, list | dict) for value in values):
                raise pa.ArrowTypeError(key)
            fields.append(pa.array(values))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            texts = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
            fields.append(pa.array(texts, pa.string()))
    return pa.StructArray.from_arrays(fields, names=keys)


def write_table(path: Path, table: Table) -> None:
    """Write a Parquet file under a temporary name, and rename it once it is on disk."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial, compression="zstd")
    _commit(partial, path)


def write_rejected(path: Path, rejected: Iterable[tuple[PromptRow, Answer]]) -> int:
    """Write the answers that were kept out, with their reasons, as JSONL, atomically; returns the rows."""
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("w", encoding="utf-8") as file:
        for prompt, answer in rejected:
            record = {**asdict(answer), "content": prompt.content, **prompt.extra}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    _commit(partial, path)
    return count


def _commit(partial: Path, path: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def as_messages(content: Content) -> list[dict[str, str]]:
    """A prompt as chat messages: text becomes one message of the user."""
    return [{"role": "user", "content": content}] if isinstance(content, str) else content
