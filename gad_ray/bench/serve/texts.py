"""Texts to score: packaged prompts with pieces of packaged and source text, every pair another one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gad_ray.batch import Message
from gad_ray.data.read import read_rows
from gad_ray.data.rows import RawRow
from gad_ray.data.sources import resolve_sources
from gad_ray.models.pairs import Pair

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of text.

    Attributes:
        name: As figures call it.
        share: Of the pairs.
        characters_per_token: About, in the packaged model's tokenizer; lengths are drawn in tokens.
    """

    name: str
    share: float
    characters_per_token: float


KINDS = (Kind("English", 0.5, 4.2), Kind("Chinese", 0.25, 0.75), Kind("code", 0.25, 3.0))


def draw_pairs(count: int, *, seed: int, shortest: int, longest: int) -> list[Pair]:
    """Distinct pairs of a prompt and a response of mixed kinds and lengths.

    No two prompts are equal, nor begin alike behind the template's own text: nothing can be shared among pairs, and
    nothing kept from an earlier one.

    Args:
        count: Number of pairs.
        seed: Of the draw; equal seeds give equal pairs.
        shortest: About the fewest tokens of a response.
        longest: About the most; lengths between are drawn evenly on a logarithmic scale.
    """
    draw = random.Random(seed)
    prompts = {"English": packaged_rows("train"), "Chinese": packaged_rows("zh")}
    streams = {
        "English": "\n".join(text for _, text in prompts["English"]),
        "Chinese": "".join(text for _, text in prompts["Chinese"]),
        "code": "\n".join(own_sources()),
    }
    kinds = draw.choices(KINDS, weights=[kind.share for kind in KINDS], k=count)
    pairs: list[Pair] = []
    for number, kind in enumerate(kinds):
        prompt, _ = draw.choice(prompts.get(kind.name) or prompts["English"])
        tokens = shortest * (longest / shortest) ** draw.random()
        text = _piece(streams[kind.name], max(1, round(tokens * kind.characters_per_token)), draw)
        message = Message(role="user", content=f"{seed}-{number}: {prompt}")
        pairs.append(Pair((message,), text))
    return pairs


def _piece(stream: str, length: int, draw: random.Random) -> str:
    start = draw.randrange(max(1, len(stream) - length))
    # A blank at the beginning is a token of its own, and of a short piece nothing may be left.
    return stream[start : start + length].strip() or stream[start : start + length]


def packaged_rows(name: str) -> list[tuple[str, str]]:
    """Prompts and responses of a file of the packaged data: ``train`` in English, ``zh`` in Chinese."""
    return list(_texts(name))


def _texts(name: str) -> Iterator[tuple[str, str]]:
    for source in resolve_sources([f"package:quickstart/{name}"]):
        for row in read_rows(source):
            if isinstance(row, RawRow):
                yield str(row.fields["content"]), str(row.fields["teacher_response"])


def own_sources() -> Sequence[str]:
    """This package's own code."""
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / "serving").rglob("*.py"))]
