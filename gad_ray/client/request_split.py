"""A large input as requests of bounded size, and what is too much for one as two halves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gad_ray.batch import Message
from gad_ray.models.pairs import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One request for scores.

    Attributes:
        places: Where its pairs stand in the whole input.
        body: Asks ``/v1/score`` for their scores.
        characters: Length of its texts, a prompt counted with each of its responses.
    """

    places: tuple[int, ...]
    body: Mapping[str, Any]
    characters: int

    def halves(self) -> tuple[Part, Part]:
        """Two requests for the same, of at least one pair each; only for a part of several pairs."""
        middle = len(self.places) // 2
        return self._cut(0, middle), self._cut(middle, len(self.places))

    def _cut(self, begin: int, end: int) -> Part:
        # What goes with all of them, a single query or a conversation, stays as it is.
        queries = self.body.get("queries")
        each = ("queries", "documents") if queries and len(queries) == len(self.places) else ("documents",)
        body = {name: value[begin:end] if name in each else value for name, value in self.body.items()}
        share = self.characters * (end - begin) // len(self.places)
        return Part(places=self.places[begin:end], body=body, characters=share)


class Bound:
    """The size of a part that was too much, so that no other of it is tried in vain."""

    def __init__(self) -> None:
        self._characters: int | None = None

    def allows(self, part: Part) -> bool:
        """Whether a part may be sent as it is; one pair always."""
        return len(part.places) == 1 or self._characters is None or part.characters < self._characters

    def too_much(self, part: Part) -> None:
        """A part could not be answered whole."""
        known = self._characters
        self._characters = part.characters if known is None else min(known, part.characters)


def parts_of(
    pairs: Sequence[Pair], options: Mapping[str, Any], *, max_pairs: int, max_characters: int
) -> list[Part]:
    """Requests within two bounds: pairs of plain prompts as N×N, others by their conversation.

    Args:
        pairs: What is to be scored.
        options: Further fields of every request.
        max_pairs: Most pairs in one request.
        max_characters: About the most characters in one; a longer pair goes alone.
    """
    plain: list[int] = []
    talks: dict[tuple[Message, ...], list[int]] = {}
    for place, pair in enumerate(pairs):
        if len(pair.messages) == 1 and pair.messages[0].role == "user":
            plain.append(place)
        else:
            talks.setdefault(pair.messages, []).append(place)
    parts: list[Part] = []
    for places, size in _bounded(plain, pairs, max_pairs, max_characters):
        queries = [pairs[i].messages[0].content for i in places]
        asked = {"queries": queries[:1] if len(set(queries)) == 1 else queries}
        parts.append(_part(places, size, pairs, {**asked, **options}))
    for messages, members in talks.items():
        for places, size in _bounded(members, pairs, max_pairs, max_characters):
            parts.append(_part(places, size, pairs, {"messages": as_json(messages), **options}))
    return parts


def as_json(messages: Sequence[Message]) -> list[dict[str, str]]:
    """A conversation as requests carry it."""
    return [{"role": message.role, "content": message.content} for message in messages]


def _part(places: Sequence[int], size: int, pairs: Sequence[Pair], fields: Mapping[str, Any]) -> Part:
    body = {**fields, "documents": [pairs[i].response for i in places]}
    return Part(places=tuple(places), body=body, characters=size)


def _bounded(
    places: Sequence[int], pairs: Sequence[Pair], max_pairs: int, max_characters: int
) -> list[tuple[list[int], int]]:
    """Places in groups, each with its characters."""
    groups: list[list[int]] = []
    sizes: list[int] = []
    for place in places:
        pair = pairs[place]
        length = len(pair.response) + sum(len(message.content) for message in pair.messages)
        if not groups or len(groups[-1]) >= max_pairs or sizes[-1] + length > max_characters:
            groups.append([])
            sizes.append(0)
        groups[-1].append(place)
        sizes[-1] += length
    return list(zip(groups, sizes, strict=True))
