"""How a row is laid out: other people's columns and stored conversations, brought to prompt and response by name.

Only what has one reading is converted, each conversion has a name that is counted and shown, and what stands beside
the text without being asked for (a system column, a history, images, a teacher's thoughts) makes a row unusable
until a setting says what it is. Nothing is dropped in silence.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from gad_ray.batch import Message
from gad_ray.config.data import ColumnRole as Role
from gad_ray.config.data import Thoughts
from gad_ray.data.rows import Reason
from gad_ray.errors import GadError

PROMPT_FIELDS = ("content", "prompt", "messages")
"""Names under which a row may carry its prompt."""

RESPONSE_FIELD = "teacher_response"

CONVERSATION_FIELD = "conversations"
"""ShareGPT's name for a conversation that ends with the response."""

ALPACA_FIELDS = ("instruction", "input", "output")

BESIDE_FIELDS = (
    *(
        "system",
        "system_prompt",
        "instruction",
        "input",
        "history",
        "context",
        "documents",
        "tools",
        "functions",
    ),
    *("image", "images", "video", "videos", "audio", "audios"),
)
"""Columns that a teacher may have seen beside the prompt: a row that fills one is not used until it is said what it is."""

_ROLE_OF = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_STORED = re.compile(
    r"\s*(?:array\()?\s*\[?\s*\{\s*['\"](?:role|from|content|value)['\"]\s*:.*[}\])]\s*", re.DOTALL
)
_SPELLED_TURNS = re.compile(r"['\"](?:role|from)['\"]\s*:\s*['\"](?:user|human|system|assistant|gpt)['\"]")
_LONGEST_STORED = 2**20
_OPEN = r"<(?:think|thinking|thought|reasoning|seed:think)>|\[THINK\]"
_CLOSE = r"</(?:think|thinking|thought|reasoning|seed:think)>|\[/THINK\]"
_THOUGHT = re.compile(rf"^\s*(?:{_OPEN})|{_CLOSE}")
_LEADING_THOUGHT = re.compile(rf"\A\s*(?:{_OPEN})?(?:(?!{_OPEN}).)*?(?:{_CLOSE})\s*", re.DOTALL)
_OPENED_THOUGHT = re.compile(rf"(?:{_OPEN})\s*\Z")


class LayoutError(Exception):
    """A row whose layout has no single reading, or none that it is known how to use."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a config says about columns and thoughts.

    Attributes:
        columns: Column → what it is.
        thoughts: What to do with a teacher's thoughts.
    """

    columns: Mapping[str, Role] = field(default_factory=dict[str, Role])
    thoughts: Thoughts = "refuse"

    def arrange(self, fields: Mapping[str, object]) -> tuple[dict[str, object], tuple[str, ...]]:
        """A row's fields under the project's own names, and the names of the conversions that were made.

        Raises:
            LayoutError: If something stands in the row that would be dropped, or that can be read in two ways.
        """
        made: list[str] = []
        row = {
            name: value for name, value in fields.items() if not _is_empty(value) or name not in BESIDE_FIELDS
        }
        extra = self._take_mapped(row, made)
        _take_alpaca(row, extra, made)
        if beside := [name for name in BESIDE_FIELDS if name in row]:
            raise LayoutError(
                Reason.UNMAPPED_COLUMN,
                f"{beside[0]} stands beside the prompt and would be dropped; say what it is, e.g. "
                f"data.columns={{{beside[0]}: {_SUGGESTED.get(beside[0], 'ignore')}}}, or ignore",
            )
        _take_conversation(row, made)
        for name in PROMPT_FIELDS:
            if isinstance(value := row.get(name), str):
                row[name] = unstored(name, value, made)
        row[RESPONSE_FIELD] = self._response(_sole_answer(row.get(RESPONSE_FIELD), made), made)
        _put_around(row, extra)
        return row, tuple(made)

    def _take_mapped(self, row: dict[str, object], made: list[str]) -> dict[Role, object]:
        """Move mapped columns to where they belong; what goes around the prompt is given back."""
        around: dict[Role, object] = {}
        targets = {"prompt": "content", "response": RESPONSE_FIELD, "conversation": CONVERSATION_FIELD}
        for column, role in self.columns.items():
            value = row.pop(column, None)
            if role == "ignore" or _is_empty(value):
                continue
            if role in targets:
                target = targets[role]
                if not _is_empty(row.get(target)):
                    raise LayoutError(
                        Reason.CONFLICTING_PROMPTS, f"{column} is mapped to {role}, and {target} is given too"
                    )
                row[target] = value
            elif role in around:
                raise LayoutError(Reason.CONFLICTING_PROMPTS, f"two columns are mapped to {role}")
            else:
                around[role] = value
            made.append(f"column {column} → {role}")
        return around

    def _response(self, value: object, made: list[str]) -> object:
        if self.thoughts == "keep" or not isinstance(value, str) or not holds_thought(value):
            return value
        if self.thoughts == "refuse":
            raise LayoutError(
                Reason.THOUGHT,
                "the response holds the teacher's thoughts; data.thoughts=strip takes them off its beginning, "
                "keep trains on them",
            )
        rest = _LEADING_THOUGHT.sub("", value, count=1)
        if holds_thought(rest) or rest == value:
            raise LayoutError(
                Reason.THOUGHT, "the response holds thoughts that are not one closed block at its beginning"
            )
        made.append("thoughts stripped")
        return rest


def holds_thought(text: str) -> bool:
    """Whether a response begins with a thought (``<think>`` and its like) or holds the end of one."""
    return _THOUGHT.search(text) is not None


def opened_thought(render: Callable[[tuple[Message, ...]], str]) -> str | None:
    """The mark with which rendered prompts open a thought that the answer would begin in; None if they open none."""
    try:
        rendered = render((Message(role="user", content="a"),))
    except GadError:
        return None  # told where the rows are rendered
    found = _OPENED_THOUGHT.search(rendered)
    return found.group().strip() if found else None


def read_columns(columns: Iterable[str]) -> frozenset[str]:
    """All columns that a row may be made of: the known ones and those that are mapped."""
    return frozenset(
        {*PROMPT_FIELDS, RESPONSE_FIELD, CONVERSATION_FIELD, *ALPACA_FIELDS, *BESIDE_FIELDS, *columns}
    )


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value == [] or value == {}


_SUGGESTED: Mapping[str, Role] = {
    "system": "system",
    "system_prompt": "system",
    "input": "input",
    "context": "input",
    "history": "history",
}


def _take_alpaca(row: dict[str, object], around: dict[Role, object], made: list[str]) -> None:
    """Instruction, input and output of a row that has no prompt and no response of another name."""
    own = (*PROMPT_FIELDS, RESPONSE_FIELD, CONVERSATION_FIELD)
    if not {"instruction", "output"} <= row.keys() or any(not _is_empty(row.get(name)) for name in own):
        return
    row["content"], row[RESPONSE_FIELD] = row.pop("instruction"), row.pop("output")
    if "input" in row:
        if "input" in around:
            raise LayoutError(
                Reason.CONFLICTING_PROMPTS, "input is given, and another column is mapped to it"
            )
        around["input"] = row.pop("input")
    made.append("instruction, input, output → prompt and response")


def _take_conversation(row: dict[str, object], made: list[str]) -> None:
    value = row.get(CONVERSATION_FIELD)
    if _is_empty(value):
        return
    if given := [name for name in PROMPT_FIELDS if not _is_empty(row.get(name))]:
        raise LayoutError(
            Reason.CONFLICTING_PROMPTS,
            f"{given[0]} and {CONVERSATION_FIELD} are both given; map one to ignore",
        )
    if isinstance(value, str):
        value = unstored(CONVERSATION_FIELD, value, made)
    messages = _messages_in(value)
    if messages is None:
        raise LayoutError(
            Reason.WRONG_ROLES,
            f"{CONVERSATION_FIELD} is not a list of turns {{from, value}} or {{role, content}} of system, human and gpt",
        )
    del row[CONVERSATION_FIELD]
    if messages[-1]["role"] == "assistant":
        if not _is_empty(row.get(RESPONSE_FIELD)):
            raise LayoutError(
                Reason.CONFLICTING_PROMPTS,
                f"{CONVERSATION_FIELD} ends with an answer, and {RESPONSE_FIELD} is given too",
            )
        row[RESPONSE_FIELD] = messages.pop()["content"]
    row["messages"] = messages
    made.append(f"{CONVERSATION_FIELD} → prompt and response")


def _messages_in(value: object) -> list[dict[str, object]] | None:
    """Turns under either naming as messages; None if they are no such turns."""
    if not isinstance(value, list) or not value:
        return None
    messages: list[dict[str, object]] = []
    for item in cast("list[object]", value):
        if not isinstance(item, dict):
            return None
        turn = cast("dict[object, object]", item)
        names = ("from", "value") if "from" in turn else ("role", "content")
        role, text = turn.get(names[0]), turn.get(names[1])
        if not isinstance(role, str) or role not in _ROLE_OF or not isinstance(text, str):
            return None
        if any(not _is_empty(turn.get(name)) for name in ("tool_calls", "function_call", "images")):
            return None
        messages.append({"role": _ROLE_OF[role], "content": text})
    return messages


def unstored(name: str, text: str, made: list[str]) -> object:
    """The messages of a conversation that is stored as JSON or as Python's repr; the text itself if it is none."""
    if not _STORED.fullmatch(text[:64] + text[-8:] if len(text) > 72 else text):
        return text
    parsed = _parsed(text) if len(text) <= _LONGEST_STORED else None
    if parsed is not None:
        kind, value = parsed
        messages = _messages_in([value] if isinstance(value, dict) else value)
        if messages is not None:
            made.append(f"{name} stored as {kind} → messages")
            return messages
        if not _is_turns(value):
            return text
    elif not _SPELLED_TURNS.search(text):
        return text
    raise LayoutError(
        Reason.STORED_CONVERSATION,
        f"{name} looks like a conversation stored as text, and cannot be read as one",
    )


def _is_turns(value: object) -> bool:
    """Whether something is meant as turns: an example of JSON in a prompt is not."""
    first: object = cast("list[object]", value)[0] if isinstance(value, list) and value else value
    keys = set(cast("dict[object, object]", first)) if isinstance(first, dict) else set[object]()
    return {"role", "content"} <= keys or {"from", "value"} <= keys


def _parsed(text: str) -> tuple[str, object] | None:
    try:
        return "JSON", json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # a backslash of the text's own
            return "Python's repr", ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _sole_answer(value: object, made: list[str]) -> object:
    """The text of a response that is a list of one message of the assistant, stored as text or not."""
    given = unstored(RESPONSE_FIELD, value, []) if isinstance(value, str) else value
    messages = _messages_in(given)
    if messages is None or len(messages) != 1 or messages[0]["role"] != "assistant":
        if messages is not None:
            raise LayoutError(Reason.NOT_TEXT, f"{RESPONSE_FIELD} holds messages, not one answer")
        return value
    made.append(f"{RESPONSE_FIELD} of one message → its text")
    return messages[0]["content"]


def _put_around(row: dict[str, object], around: Mapping[Role, object]) -> None:
    """Put a system text, earlier turns and an input around the row's only prompt."""
    if not around:
        return
    given = [name for name in PROMPT_FIELDS if not _is_empty(row.get(name))]
    if len(given) != 1:
        return  # whoever checks the prompt says what is wrong
    value = row[given[0]]
    messages: list[object] = (
        [{"role": "user", "content": value}]
        if isinstance(value, str)
        else list(cast("list[object]", value))
        if isinstance(value, list)
        else []
    )
    turns = _messages_in(messages)
    if turns is None:
        return
    if "input" in around:
        turns[-1]["content"] = f"{turns[-1]['content']}\n\n{_text_of('input', around['input'])}"
    if "history" in around:
        if len(turns) > 1:
            raise LayoutError(
                Reason.CONFLICTING_PROMPTS, "history is mapped, and the prompt has earlier turns too"
            )
        turns = [*_history_of(around["history"]), *turns]
    if "system" in around:
        if turns[0]["role"] == "system":
            raise LayoutError(
                Reason.CONFLICTING_PROMPTS, "system is mapped, and the prompt has a system message too"
            )
        turns = [{"role": "system", "content": _text_of("system", around["system"])}, *turns]
    row[given[0]] = turns


def _text_of(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise LayoutError(
            Reason.NOT_TEXT, f"what is mapped to {name} is a {type(value).__name__}, not a string"
        )
    return value


def _history_of(value: object) -> list[dict[str, object]]:
    """Earlier turns: pairs of (user, assistant), or messages."""
    if (messages := _messages_in(value)) is not None:
        return messages
    turns: list[dict[str, object]] = []
    for pair in cast("list[object]", value) if isinstance(value, list) else [None]:
        texts = cast("list[object]", pair) if isinstance(pair, list) else []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise LayoutError(Reason.NOT_TEXT, "history is neither messages nor pairs of user and assistant")
        turns += [{"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[1]}]
    return turns
