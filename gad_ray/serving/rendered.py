"""Prompts that a trainer has already rendered through a chat template, taken apart into messages again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gad_ray.batch import Message
from gad_ray.errors import DataError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import Pair
from gad_ray.serving.envelope import ApiError

_MARKS = {"system": "\ue010system\ue011", "user": "\ue010user\ue011"}
_ROLES = (("user",), ("system", "user"))  # of two readings of one prompt, the shorter is taken
_MAX_PLACES = 64
"""Most places at which a text may fall apart. Each costs a rendering."""


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
        if prompt is None:
            return self._cut(query, where=where)
        if not query.startswith(prompt):
            raise _refused("the query does not begin with its prompt", where)
        response = self._chat.without_end(query[len(prompt) :])
        if self._chat.has_control(response):
            raise _refused("the response has control tokens inside: is it one turn?", where)
        return Pair(self._messages(prompt, where=where), response)

    def _messages(self, prompt: str, *, where: str) -> tuple[Message, ...]:
        if messages := self._reading(prompt, where=where):
            return messages
        if self._chat.has_control(prompt):
            raise _refused(
                "the prompt has control tokens, but is not one user message in the critic's own template",
                where,
            )
        return (Message(role="user", content=prompt),)

    def _cut(self, query: str, *, where: str) -> Pair:
        borders = {border for frame in self._frames for border in self._borders(query, frame, where=where)}
        found: dict[int, Pair] = {}
        for border in sorted(borders):
            response = self._chat.without_end(query[border:])
            if self._chat.has_control(response):
                continue
            if messages := self._reading(query[:border], where=where):
                found[border] = Pair(messages, response)
        if not found:
            raise _refused(
                "without prompts, the query must be one turn in the critic's own chat template", where
            )
        if len(found) > 1:
            raise _ambiguous(found, where)
        return next(iter(found.values()))

    def _borders(self, query: str, frame: _Frame, *, where: str) -> Iterator[int]:
        """Where a prompt of this frame may end."""
        end = frame.pieces[-1]
        if end:
            for start in _occurrences(query, end, len(frame.pieces[0]), where=where):
                yield start + len(end)

    def _reading(self, prompt: str, *, where: str) -> tuple[Message, ...] | None:
        """Messages that the template renders to exactly this prompt; ones without an empty message, if there are any."""
        spare: tuple[Message, ...] | None = None
        for frame in self._frames:
            for contents in _contents(prompt, frame, where=where):
                if any(self._chat.has_control(text) for text in contents):
                    continue
                messages = tuple(
                    Message(role=r, content=c) for r, c in zip(frame.roles, contents, strict=True)
                )
                if not self._renders_to(messages, prompt):
                    continue
                if all(contents):
                    return messages
                spare = spare or messages
        return spare

    def _renders_to(self, messages: tuple[Message, ...], prompt: str) -> bool:
        try:
            return self._chat.prompt_text(messages) == prompt
        except DataError:  # such as an empty message, to a template that wants none
            return False


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


def _contents(prompt: str, frame: _Frame, *, where: str) -> Iterator[list[str]]:
    """All texts of the messages with which the frame is the prompt."""
    first, second = frame.pieces[0], frame.pieces[1]
    if not prompt.startswith(first) or not prompt.endswith(frame.pieces[-1]):
        return
    if len(frame.roles) == 1:
        if (only := _solve(prompt, frame.pieces)) is not None:
            yield [only]
        return
    for end in _occurrences(prompt, second, len(first), where=where) if second else [len(first)]:
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


def _solve(prompt: str, pieces: Sequence[str]) -> str | None:
    """The text that stands in every gap between the pieces, if the prompt is made of them."""
    gaps = len(pieces) - 1
    length, rest = divmod(len(prompt) - sum(map(len, pieces)), gaps)
    if length < 0 or rest:
        return None
    text = prompt[len(pieces[0]) : len(pieces[0]) + length]
    return text if text.join(pieces) == prompt else None


def _occurrences(text: str, part: str, start: int, *, where: str) -> Iterator[int]:
    for number, match in enumerate(re.finditer(f"(?={re.escape(part)})", text[start:])):
        if number == _MAX_PLACES:
            raise _refused(
                f"the template's {part!r} stands in it more than {_MAX_PLACES} times, so there are too many readings",
                where,
            )
        yield start + match.start()


def _refused(message: str, where: str, *, code: str = "prompt_not_understood") -> ApiError:
    return ApiError(f"{message}. Send such samples to /v1/score with messages", code=code, param=where)


def _ambiguous(found: dict[int, Pair], where: str) -> ApiError:
    readings = [
        f"{' and '.join(m.role for m in pair.messages)} up to character {border}, then the response "
        f"{pair.response[:20]!r}…"
        for border, pair in list(found.items())[:3]
    ]
    return _refused(
        f"the query has {len(found)} readings: {'; or '.join(readings)}. Tell them apart with prompts",
        where,
        code="prompt_ambiguous",
    )
