"""Prompts that a trainer has already rendered through a chat template, taken apart into messages again."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from gad_ray.batch import Message
from gad_ray.errors import DataError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import Pair
from gad_ray.serving.application.errors import ApiError

_MARKS = {"system": "\ue010system\ue011", "user": "\ue010user\ue011"}
_ROLES = (("user",), ("system", "user"))  # of two readings of one prompt, the shorter is taken
_MAX_PLACES = 128
"""Most places at which one query may fall apart. Each costs a rendering."""
_MAX_NAMED = 3
"""Most readings that an error names; the search ends once there are more."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a template writes around messages of some roles.

    Attributes:
        roles: The messages'.
        slots: Which of the messages stands where; one may be written twice.
        pieces: The template's text before, between and behind them: one more than there are slots.
    """

    roles: tuple[str, ...]
    slots: tuple[int, ...]
    pieces: tuple[str, ...]


class RenderedPrompts:
    """Takes apart what the critic's own template has put together.

    A rendered prompt of a user's message, with or without a system message before it, is told by the template's
    text around them: whatever the template renders to this very prompt is a reading of it. All readings of one
    prompt are the same tokens, so the shortest is as good as any. Where a query alone can be cut into prompt and
    response at several places, the critic would see different responses: it is refused. So is text in which nobody
    can tell the template's control tokens from those that somebody has typed.
    """

    def __init__(self, chat: ChatFormat) -> None:
        self._chat = chat
        self._frames = [frame for roles in _ROLES if (frame := _frame_of(chat, roles)) is not None]

    def pair(self, query: str, prompt: str | None, *, where: str) -> Pair:
        """The pair in a trainer's query.

        Args:
            query: Prompt and response as one text; stop and padding tokens at its end are left out.
            prompt: The prompt as it stands at the query's beginning, where the trainer gives it.
            where: The field, for the error.

        Raises:
            ApiError: 400, if prompt and response cannot be told apart for certain.
        """
        search = _Search(self._chat, self._frames, where=where)
        if prompt is None:
            return search.cut(query)
        if not query.startswith(prompt):
            raise _refused("the query does not begin with its prompt", where)
        response = self._chat.without_end(query[len(prompt) :])
        if self._chat.has_control(response):
            raise _refused("the response has control tokens inside: is it one turn?", where)
        return Pair(search.messages(prompt), response)


class _Search:
    """The search for the readings of one query. It ends after so many places, however the query is made."""

    def __init__(self, chat: ChatFormat, frames: Sequence[_Frame], *, where: str) -> None:
        self._chat = chat
        self._frames = frames
        self._where = where
        self._num_places = 0

    def messages(self, prompt: str) -> tuple[Message, ...]:
        """The messages of a prompt that the trainer gives."""
        if messages := self._reading(prompt):
            return messages
        if self._chat.has_control(prompt):
            raise _refused(
                "the prompt has control tokens, but is not one user message in the critic's own template",
                self._where,
            )
        return (Message(role="user", content=prompt),)

    def cut(self, query: str) -> Pair:
        """The pair of a query alone, if it is the only one that the critic can see in it."""
        readings = self._readings(query)
        first = next(readings, None)
        if first is None:
            raise _refused(
                "without prompts, the query must be one turn in the critic's own chat template", self._where
            )
        second = next(readings, None)
        if second is not None:
            # Some tokenizers drop blanks: two borders may then be one to the critic.
            distinct: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, Pair]] = {}
            for border, pair in chain((first, second), readings):
                distinct.setdefault(self._ids(pair), (border, pair))
                if len(distinct) > _MAX_NAMED:
                    break
            if len(distinct) > 1:
                raise _ambiguous(list(distinct.values()), self._where)
        return first[1]

    def _readings(self, query: str) -> Iterator[tuple[int, Pair]]:
        """Every border with the pair around it."""
        for border in self._borders(query):
            if messages := self._reading(query[:border]):
                yield border, Pair(messages, self._chat.without_end(query[border:]))

    def _ids(self, pair: Pair) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(self._chat.prompt_ids(pair.messages)), tuple(self._chat.response_ids(pair.response))

    def _borders(self, query: str) -> list[int]:
        """Where a prompt of any frame may end, so that no control token is left in the response."""
        starts: dict[str, int] = {}
        for frame in self._frames:
            end, first = frame.pieces[-1], len(frame.pieces[0])
            starts[end] = min(first, starts.get(end, first))
        borders = sorted(
            {
                place + len(end)
                for end, start in starts.items()
                if end
                for place in self._places(query, end, start)
            }
        )
        # Behind a border that leaves no control token, no other leaves one.
        return borders[bisect_left(borders, True, key=lambda border: self._may_respond(query[border:])) :]

    def _may_respond(self, text: str) -> bool:
        return not self._chat.has_control(self._chat.without_end(text))

    def _reading(self, prompt: str) -> tuple[Message, ...] | None:
        """Messages that the template renders to exactly this prompt; ones without an empty message, if there are any."""
        spare: tuple[Message, ...] | None = None
        for frame in self._frames:
            for contents in self._contents(prompt, frame):
                if any(self._chat.has_control(text) for text in contents):
                    continue
                messages = tuple(
                    Message(role=r, content=c) for r, c in zip(frame.roles, contents, strict=True)
                )
                if not self._renders_to(messages, prompt):
                    continue
                if all(text.strip() for text in contents):
                    return messages
                spare = spare or messages
        return spare

    def _renders_to(self, messages: tuple[Message, ...], prompt: str) -> bool:
        try:
            return self._chat.prompt_text(messages) == prompt
        except DataError:  # such as an empty message, to a template that wants none
            return False

    def _contents(self, prompt: str, frame: _Frame) -> Iterator[list[str]]:
        """All texts of the messages with which the frame is the prompt."""
        first, second = frame.pieces[0], frame.pieces[1]
        if not prompt.startswith(first) or not prompt.endswith(frame.pieces[-1]):
            return
        if len(frame.roles) == 1:
            if (only := _solve(prompt, frame.pieces)) is not None:
                yield [only]
            return
        for end in self._places(prompt, second, len(first)):
            leading = prompt[len(first) : end]
            # With one message known, the frame is one of the other alone.
            pieces, literal = [], first
            for slot, behind in zip(frame.slots, frame.pieces[1:], strict=True):
                if slot == frame.slots[0]:
                    literal += leading + behind
                else:
                    pieces.append(literal)
                    literal = behind
            other = _solve(prompt, [*pieces, literal])
            if other is not None:
                yield [leading, other] if frame.slots[0] == 0 else [other, leading]

    def _places(self, text: str, part: str, start: int) -> Iterator[int]:
        """Where a part of the template's text stands in a text; every place, for an empty part."""
        for match in re.compile(f"(?={re.escape(part)})").finditer(text, start):
            if self._num_places == _MAX_PLACES:
                raise _refused(
                    f"there are more than {_MAX_PLACES} places at which it may fall apart: the template's "
                    f"{part!r} stands in it too often",
                    self._where,
                )
            self._num_places += 1
            yield match.start()


def _frame_of(chat: ChatFormat, roles: tuple[str, ...]) -> _Frame | None:
    try:
        rendered = chat.prompt_text([Message(role=role, content=_MARKS[role]) for role in roles])
    except DataError:  # a template without system messages
        return None
    parts = re.split("(" + "|".join(_MARKS.values()) + ")", rendered)
    slots = tuple(roles.index(part[1:-1]) for part in parts[1::2])
    if set(slots) != set(range(len(roles))):  # it leaves a message out
        return None
    return _Frame(roles, slots, tuple(parts[::2]))


def _solve(prompt: str, pieces: Sequence[str]) -> str | None:
    """The text that stands in every gap between the pieces, if the prompt is made of them."""
    gaps = len(pieces) - 1
    length, rest = divmod(len(prompt) - sum(map(len, pieces)), gaps)
    if length < 0 or rest:
        return None
    text = prompt[len(pieces[0]) : len(pieces[0]) + length]
    return text if text.join(pieces) == prompt else None


def _refused(message: str, where: str, *, code: str = "prompt_not_understood") -> ApiError:
    return ApiError(f"{message}. Send such samples to /v1/score with messages", code=code, param=where)


def _ambiguous(found: Sequence[tuple[int, Pair]], where: str) -> ApiError:
    readings = [
        f"{' and '.join(m.role for m in pair.messages)} up to character {border}, then the response "
        f"{pair.response[:20]!r}…"
        for border, pair in found[:_MAX_NAMED]
    ]
    number = str(len(found)) if len(found) <= _MAX_NAMED else f"more than {_MAX_NAMED}"
    return _refused(
        f"the query has {number} readings: {'; or '.join(readings)}. Tell them apart with prompts",
        where,
        code="prompt_ambiguous",
    )
