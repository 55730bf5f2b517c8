"""What an endpoint's reply holds: text, why there is none, or that it cannot be read. Vendors differ; each way has a name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

MAX_REPLY_BYTES = 16 * 2**20
"""Longest reply that is read; no text answer comes near it."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_COUNT = 2**53
_TEXT_CHUNKS = ("text", "output_text")
_THOUGHT_CHUNKS = ("thinking", "reasoning")
_NO_TEXT_REASONS = ("content_filter", "tool_calls", "function_call")


class UnreadableReplyError(Exception):
    """A reply that is no chat completion.

    Attributes:
        final: Whether asking again is no use: the reply is too long, or its parts are of the wrong kind.
    """

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReply:
    """A chat completion.

    Attributes:
        text: The answer's text, without what a UTF-8 file cannot carry.
        problem: Status and reason where the text is none to learn from; None where it is.
        finish_reason: Why the answer ended, as the endpoint says it.
        model: The model that answered, as the endpoint says it.
        prompt_tokens: As the endpoint counts them, 0 where it does not.
        completion_tokens: The same of the answer.
    """

    text: str
    problem: tuple[str, str] | None
    finish_reason: str | None
    model: str
    prompt_tokens: int
    completion_tokens: int


def read_reply(body: bytes) -> ReadReply:
    """Read the body of a reply with status 200.

    Raises:
        UnreadableReplyError: If it is no chat completion.
    """
    reply = _object_in(body)
    usage = _mapping(reply.get("usage"))
    prompt_tokens, completion_tokens = (
        _count(usage, name) for name in ("prompt_tokens", "completion_tokens")
    )
    choices = reply.get("choices")
    choice = _mapping(cast("list[object]", choices)[0]) if isinstance(choices, list) and choices else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        raise UnreadableReplyError(
            f"the endpoint's answer has no choices[0].message{_error_in(reply)}", final=False
        )
    fields = cast("dict[str, object]", message)
    text = _text_of(fields.get("content")).strip()
    finish = choice.get("finish_reason")
    finish_reason = carried(finish) if isinstance(finish, str) else None
    model = reply.get("model")
    return ReadReply(
        text=carried(text),
        problem=_problem(text, finish_reason, fields),
        finish_reason=finish_reason,
        model=carried(model) if isinstance(model, str) else "",
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def carried(text: str) -> str:
    """A text that UTF-8 can carry: U+FFFD for each lone surrogate."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def _object_in(body: bytes) -> dict[str, object]:
    if body.lstrip()[:5] in (b"data:", b"event"):
        raise UnreadableReplyError(
            "the endpoint streams its answer (server-sent events), which was not asked for", final=True
        )
    try:
        value: object = json.loads(body)
    except RecursionError:
        raise UnreadableReplyError(
            "the endpoint's answer is nested too deep to be read", final=True
        ) from None
    except ValueError:
        raise UnreadableReplyError("the endpoint's answer is not JSON", final=False) from None
    if not isinstance(value, dict):
        raise UnreadableReplyError("the endpoint's answer is not a JSON object", final=False)
    return cast("dict[str, object]", value)


def _mapping(value: object) -> Mapping[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _count(usage: Mapping[str, object], name: str) -> int:
    """A number of tokens; digits in quotes do for one."""
    value = usage.get(name)
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_COUNT:
        raise UnreadableReplyError(f"usage.{name} is {_shown(value)}, not a number of tokens", final=True)
    return int(value)


def _text_of(content: object) -> str:
    """The text of a message: a string, nothing, or a list of chunks, of which the texts are joined.

    Raises:
        UnreadableReplyError: If there is something that is neither text nor thought.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnreadableReplyError(
            f"the answer's content is a {type(content).__name__}, not text", final=True
        )
    parts: list[str] = []
    for chunk in cast("list[object]", content):
        if isinstance(chunk, str):
            parts.append(chunk)
            continue
        fields = _mapping(chunk)
        kind, text = fields.get("type"), fields.get("text")
        if kind in _THOUGHT_CHUNKS:
            continue
        if kind not in _TEXT_CHUNKS or not isinstance(text, str):
            raise UnreadableReplyError(
                f"the answer holds a chunk of type {_shown(kind)}, not text", final=True
            )
        parts.append(text)
    return "".join(parts)


def _problem(text: str, finish_reason: str | None, message: Mapping[str, object]) -> tuple[str, str] | None:
    if finish_reason == "length":
        return "cut", "reached the longest answer that was asked for, or that the model gives"
    if finish_reason in _NO_TEXT_REASONS:
        return "refused", f"finish_reason is {finish_reason}"
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        return "refused", f"the model refuses: {carried(refusal[:200])}"
    if message.get("tool_calls") or message.get("function_call"):
        return "refused", "the answer calls a tool"
    if not text:
        has_thought = any(message.get(name) for name in ("reasoning_content", "reasoning"))
        return "empty", "no text in the answer" + (", only a thought (reasoning)" if has_thought else "")
    if _LONE_SURROGATE.search(text):
        return "refused", "holds a lone surrogate, which no UTF-8 file can carry"
    return None


def _error_in(reply: Mapping[str, object]) -> str:
    """The error that some endpoints send with status 200."""
    error = reply.get("error")
    text = _mapping(error).get("message") if isinstance(error, dict) else error
    return f": {carried(text[:200])}" if isinstance(text, str) and text else ""


def _shown(value: object) -> str:
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else carried(f"{value!r:.60}")
