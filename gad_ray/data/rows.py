"""What reading and checking make of one row of input: a raw row, or a rejection with its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

EXCERPT_CHARACTERS = 200
"""Length to which a rejected row is cut where it is only shown, never where it is used."""


class Reason(StrEnum):
    """Why a row is not used."""

    INVALID_UTF8 = "invalid_utf8"
    BYTE_ORDER_MARK = "byte_order_mark"
    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    LINE_TOO_LONG = "line_too_long"
    UNREADABLE_VALUE = "unreadable_value"
    LONE_SURROGATE = "lone_surrogate"
    NO_PROMPT = "no_prompt"
    EMPTY_PROMPT = "empty_prompt"
    CONFLICTING_PROMPTS = "conflicting_prompts"
    NO_RESPONSE = "no_response"
    EMPTY_RESPONSE = "empty_response"
    NOT_TEXT = "not_text"
    WRONG_ROLES = "wrong_roles"
    MOJIBAKE = "mojibake"
    CONTROL_CHARACTERS = "control_characters"
    UNMAPPED_COLUMN = "unmapped_column"
    STORED_CONVERSATION = "stored_conversation"
    THOUGHT = "thought"
    REFUSED_BY_TEMPLATE = "refused_by_template"
    BAD_ID = "bad_id"
    BAD_META = "bad_meta"
    LONG_PROMPT = "long_prompt"
    LONG_RESPONSE = "long_response"
    NO_DIFFICULTY = "no_difficulty"
    DUPLICATE_ID = "duplicate_id"
    DUPLICATE_ROW = "duplicate_row"
    HELDOUT_PROMPT = "heldout_prompt"
    """Nothing is wrong with the row, but its prompt is held out, so it is never trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row stands. ``number`` is 1-based: the line of a JSONL file, the row of anything else."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """A row as its file has it, not checked yet."""

    place: Place
    fields: Mapping[str, object]
    unread: tuple[str, ...] = ()
    """Columns of text that the file has and that were not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A row that is not used: where it stands, why, and its beginning for whoever looks into it."""

    place: Place
    reason: Reason
    detail: str
    excerpt: str


def excerpt_of(value: object) -> str:
    """The beginning of a row, as text to show: JSON of its fields, or the line itself."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bytes):
        text = value[: 4 * EXCERPT_CHARACTERS].decode("utf-8", errors="backslashreplace")
    else:
        text = _fields_as_text(value)
    return text if len(text) <= EXCERPT_CHARACTERS else text[: EXCERPT_CHARACTERS - 1] + "…"


def _fields_as_text(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # keys that are no strings, or nesting too deep to print
        return f"<{type(value).__name__} that cannot be shown>"


def reject(row: RawRow, reason: Reason, detail: str) -> Rejection:
    """The rejection of a row that could be read."""
    return Rejection(place=row.place, reason=reason, detail=detail, excerpt=excerpt_of(row.fields))
