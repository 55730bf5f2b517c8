"""Prompts that a trainer has already rendered through a chat template, taken apart into messages again."""

from __future__ import annotations

from collections.abc import Sequence

from gad_ray.batch import Message
from gad_ray.errors import DataError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import Pair
from gad_ray.serving.envelope import ApiError

_SYSTEM, _USER = "\ue010system\ue011", "\ue010user\ue011"


class RenderedPrompts:
    """Takes apart what the critic's own template has put together.

    A rendered prompt of a user's message, with or without a system message before it, is told by the template's
    text around them. Text without any control token is taken as a user's message. In all other text nobody can
    tell the template's control tokens from those that somebody has typed: it is refused.
    """

    def __init__(self, chat: ChatFormat) -> None:
        self._chat = chat
        self._frames: list[tuple[tuple[str, ...], list[str]]] = []
        for roles in (("system", "user"), ("user",)):
            marks = [_SYSTEM if role == "system" else _USER for role in roles]
            messages = [Message(role=role, content=mark) for role, mark in zip(roles, marks, strict=True)]
            try:
                rendered = chat.prompt_text(messages)
            except DataError:  # a template without system messages
                continue
            pieces = _split(rendered, marks)
            if pieces is not None:
                self._frames.append((roles, pieces))

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
            messages, rest = self._cut(query, where=where)
        else:
            if not query.startswith(prompt):
                raise _refused("the query does not begin with its prompt", where)
            messages, rest = self._messages(prompt, where=where), query[len(prompt) :]
        response = self._chat.without_end(rest)
        if self._chat.has_control(response):
            raise _refused("the response has control tokens inside: is it one turn?", where)
        return Pair(messages, response)

    def _messages(self, prompt: str, *, where: str) -> tuple[Message, ...]:
        for roles, pieces in self._frames:
            contents = _contents(prompt, pieces)
            if contents is not None and (messages := self._verified(roles, contents, prompt)):
                return messages
        if self._chat.has_control(prompt):
            raise _refused(
                "the prompt has control tokens, but is not one user message in the critic's own template",
                where,
            )
        return (Message(role="user", content=prompt),)

    def _cut(self, query: str, *, where: str) -> tuple[tuple[Message, ...], str]:
        for roles, pieces in self._frames:
            end = query.find(pieces[-1], len(pieces[0]))
            if not self._chat.has_control(pieces[-1]) or end < 0:
                continue
            border = end + len(pieces[-1])
            contents = _contents(query[:border], pieces)
            if contents is not None and (messages := self._verified(roles, contents, query[:border])):
                return messages, query[border:]
        raise _refused("without prompts, the query must be in the critic's own chat template", where)

    def _verified(
        self, roles: Sequence[str], contents: Sequence[str], prompt: str
    ) -> tuple[Message, ...] | None:
        if any(self._chat.has_control(text) for text in contents):
            return None
        messages = tuple(Message(role=r, content=c) for r, c in zip(roles, contents, strict=True))
        return messages if self._chat.prompt_text(messages) == prompt else None


def _split(rendered: str, marks: Sequence[str]) -> list[str] | None:
    """The template's text around the messages; None if it repeats or leaves out one."""
    pieces: list[str] = []
    for mark in marks:
        before, found, rendered = rendered.partition(mark)
        if not found or mark in rendered:
            return None
        pieces.append(before)
    return [*pieces, rendered]


def _contents(prompt: str, pieces: Sequence[str]) -> list[str] | None:
    first, last = pieces[0], pieces[-1]
    if not (prompt.startswith(first) and prompt.endswith(last)) or len(prompt) < len(first) + len(last):
        return None
    inner = prompt[len(first) : len(prompt) - len(last)]
    if len(pieces) == 2:
        return [inner]
    before, found, after = inner.partition(pieces[1])
    return [before, after] if found else None


def _refused(message: str, where: str) -> ApiError:
    return ApiError(
        f"{message}. Send such samples to /v1/score with messages", code="prompt_not_understood", param=where
    )
