"""From a raw row to a usable example, or to the reason why it is none. Nothing is repaired, cut or guessed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from gad_ray.batch import Example, Message
from gad_ray.data.layout import PROMPT_FIELDS, RESPONSE_FIELD, Layout, LayoutError
from gad_ray.data.rows import Place, RawRow, Reason, Rejection, reject
from gad_ray.data.text import flaw_of
from gad_ray.errors import DataError

PromptCounter = Callable[[tuple[Message, ...]], int]
"""Tokens of a prompt as the policy reads it, chat template and generation prompt included."""

ResponseCounter = Callable[[str], int]
"""Tokens of a response as the policy writes it."""

_ROLES = ("system", "user", "assistant")
_TOOL_FIELDS = ("tool_calls", "function_call")
_MAX_ID_CHARACTERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidRow:
    """An example, with where it was found and how long it is in tokens of the policy's tokenizer."""

    place: Place
    example: Example
    has_own_id: bool
    num_prompt_tokens: int
    num_response_tokens: int
    difficulty: object = None
    """What stands in the column that a curriculum goes by, unchecked; None if there is nothing."""
    conversions: tuple[str, ...] = ()
    """How the row was brought to a prompt and a response, where it did not have them as they are."""


class _UnusableError(Exception):
    """Carries the reason out of the depth of a row; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class RowValidator:
    """Checks rows one by one; what takes several rows to see (duplicates) is not seen here.

    Attributes:
        max_prompt_tokens: Longest prompt, in tokens.
        max_teacher_tokens: Longest teacher response, in tokens.
        count_prompt_tokens: Counts the tokens of a prompt; a ``DataError`` says that it cannot be rendered.
        count_response_tokens: Counts the tokens of a response.
        difficulty_column: Field, or key of ``meta``, that a curriculum goes by; None if there is no such curriculum.
        layout: What columns are, and what to do with thoughts.
    """

    max_prompt_tokens: int
    max_teacher_tokens: int
    count_prompt_tokens: PromptCounter
    count_response_tokens: ResponseCounter
    difficulty_column: str | None = None
    layout: Layout = field(default_factory=Layout)

    def check(self, row: RawRow) -> ValidRow | Rejection:
        """The example that a row holds, or why it holds none."""
        try:
            return self._valid_row(row)
        except (_UnusableError, LayoutError) as unusable:
            return reject(row, unusable.reason, unusable.detail)

    def _valid_row(self, row: RawRow) -> ValidRow:
        fields, conversions = self.layout.arrange(row.fields)
        messages = _prompt_of(fields)
        response = _response_of(fields)
        own_id = _own_id_of(row.fields)
        example = Example(
            id=own_id if own_id is not None else content_id(messages, response),
            messages=messages,
            teacher_response=response,
            meta=_meta_of(row.fields),
        )
        try:
            num_prompt_tokens = self.count_prompt_tokens(messages)
        except DataError as error:
            raise _UnusableError(Reason.REFUSED_BY_TEMPLATE, str(error)) from None
        if num_prompt_tokens > self.max_prompt_tokens:
            detail = f"{num_prompt_tokens} tokens; max_prompt_tokens is {self.max_prompt_tokens}"
            raise _UnusableError(Reason.LONG_PROMPT, detail)
        num_response_tokens = self.count_response_tokens(response)
        if num_response_tokens > self.max_teacher_tokens:
            detail = f"{num_response_tokens} tokens; max_teacher_tokens is {self.max_teacher_tokens}"
            raise _UnusableError(Reason.LONG_RESPONSE, detail)
        return ValidRow(
            place=row.place,
            example=example,
            has_own_id=own_id is not None,
            num_prompt_tokens=num_prompt_tokens,
            num_response_tokens=num_response_tokens,
            difficulty=_value_of(row.fields, self.difficulty_column),
            conversions=conversions,
        )


def content_id(messages: Sequence[Message], response: str) -> str:
    """The id of a row that has none of its own: 16 hexadecimal digits, the same wherever the row stands."""
    parts = [[m.role, m.content] for m in messages]
    text = json.dumps([parts, response], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompt_key(messages: Sequence[Message]) -> bytes:
    """Equal for prompts that are the same but for white space; tells held-out prompts among the others."""
    parts = [[m.role, " ".join(m.content.split())] for m in messages]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


# --- The prompt


def _prompt_of(fields: Mapping[str, object]) -> tuple[Message, ...]:
    given = [name for name in PROMPT_FIELDS if fields.get(name) is not None]
    if not given:
        raise _UnusableError(
            Reason.NO_PROMPT, f"none of {', '.join(PROMPT_FIELDS)} is given; the row has: {_names(fields)}"
        )
    first, *others = given
    messages = _messages_of(first, fields[first])
    for other in others:
        if _messages_of(other, fields[other]) != messages:
            raise _UnusableError(
                Reason.CONFLICTING_PROMPTS, f"{first} and {other} are both given, and differ"
            )
    return messages


def _messages_of(name: str, value: object) -> tuple[Message, ...]:
    if isinstance(value, str):
        _check_text(name, value, if_empty=Reason.EMPTY_PROMPT)
        return (Message(role="user", content=value),)
    if not isinstance(value, list):
        detail = f"{name} is a {type(value).__name__}, neither a string nor a list of messages"
        raise _UnusableError(Reason.NOT_TEXT, detail)
    entries = cast("list[object]", value)
    if not entries:
        raise _UnusableError(Reason.EMPTY_PROMPT, f"{name} is an empty list")
    messages = tuple(_message_of(f"{name}[{i}]", entry) for i, entry in enumerate(entries))
    _check_turns(name, [m.role for m in messages])
    return messages


def _message_of(name: str, value: object) -> Message:
    if not isinstance(value, dict):
        raise _UnusableError(
            Reason.NOT_TEXT, f"{name} is a {type(value).__name__}, not a message with role and content"
        )
    entry = cast("dict[str, object]", value)
    role, content = entry.get("role"), entry.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise _UnusableError(
            Reason.WRONG_ROLES, f"the role of {name} is {role!r}, not one of {', '.join(_ROLES)}"
        )
    if calls := [field for field in _TOOL_FIELDS if entry.get(field)]:
        raise _UnusableError(
            Reason.NOT_TEXT, f"{name} carries {calls[0]}, which a prompt of text cannot hold"
        )
    if not isinstance(content, str):
        raise _UnusableError(
            Reason.NOT_TEXT, f"the content of {name} is a {type(content).__name__}, not a string"
        )
    _check_text(name, content, if_empty=Reason.EMPTY_PROMPT)
    return Message(role=role, content=content)


def _check_turns(name: str, roles: Sequence[str]) -> None:
    """A system message may come first; then user and assistant take turns, and the user has the last word."""
    turns = roles[1:] if roles[0] == "system" else roles
    expected = ["user" if i % 2 == 0 else "assistant" for i in range(len(turns))]
    if turns and turns[-1] != "user":
        raise _UnusableError(
            Reason.WRONG_ROLES, f"the last message of {name} is from the {turns[-1]}, not from the user"
        )
    if not turns or turns != expected:
        raise _UnusableError(
            Reason.WRONG_ROLES, f"the messages of {name} do not take turns: {', '.join(roles)}"
        )


# --- The rest


def _response_of(fields: Mapping[str, object]) -> str:
    value = fields.get(RESPONSE_FIELD)
    if value is None:
        raise _UnusableError(
            Reason.NO_RESPONSE, f"{RESPONSE_FIELD} is not given; the row has: {_names(fields)}"
        )
    if not isinstance(value, str):
        raise _UnusableError(Reason.NOT_TEXT, f"{RESPONSE_FIELD} is a {type(value).__name__}, not a string")
    _check_text(RESPONSE_FIELD, value, if_empty=Reason.EMPTY_RESPONSE)
    return value


def _own_id_of(fields: Mapping[str, object]) -> str | None:
    value = fields.get("id")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _UnusableError(
            Reason.BAD_ID, f"id is a {type(value).__name__}, neither a string nor an integer"
        )
    own_id = str(value)
    if not own_id.strip() or len(own_id) > _MAX_ID_CHARACTERS or not own_id.isprintable():
        detail = f"id {own_id[:40]!r} is empty, longer than {_MAX_ID_CHARACTERS} characters, or not printable"
        raise _UnusableError(Reason.BAD_ID, detail)
    return own_id


def _meta_of(fields: Mapping[str, object]) -> dict[str, str]:
    value = fields.get("meta")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _UnusableError(Reason.BAD_META, f"meta is a {type(value).__name__}, not an object")
    entries = cast("dict[object, object]", value).items()
    try:
        return {str(key): _meta_text(inner) for key, inner in entries if inner is not None}
    except (TypeError, ValueError, RecursionError) as error:
        raise _UnusableError(Reason.BAD_META, f"meta cannot be kept as text: {error}") from error


def _value_of(fields: Mapping[str, object], column: str | None) -> object:
    """What a row has in a column, or else under that key of its ``meta``."""
    if column is None:
        return None
    if (value := fields.get(column)) is not None:
        return value
    meta = fields.get("meta")
    return cast("dict[object, object]", meta).get(column) if isinstance(meta, dict) else None


def _meta_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _check_text(name: str, text: str, *, if_empty: Reason) -> None:
    if not text.strip():
        raise _UnusableError(if_empty, f"{name} is empty, or nothing but white space")
    if flaw := flaw_of(text):
        reason, detail = flaw
        raise _UnusableError(reason, f"{name}: {detail}")


def _names(fields: Mapping[str, object]) -> str:
    return ", ".join(name for name, value in fields.items() if value is not None) or "nothing"


def parse_prompt(fields: Mapping[str, object], *, where: str) -> tuple[Message, ...]:
    """The conversation of one row, for a caller that refuses at the first bad one.

    Raises:
        DataError: Naming ``where`` and what is wrong with the prompt.
    """
    try:
        return _prompt_of(fields)
    except _UnusableError as unusable:
        raise DataError(
            unusable.detail,
            where=where,
            hint="give content, prompt or messages; the last message is the user's",
        ) from None
