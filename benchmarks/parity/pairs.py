"""The pairs that are scored: English, Chinese, emoji and code of 1 to 1,000 tokens, or a file's."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from gad_ray.batch import Message
from gad_ray.bench.serve.texts import own_sources, packaged_rows
from gad_ray.data.jsonl import rows_of
from gad_ray.errors import DataError
from gad_ray.evaluation.scoring import pairs_of
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import Pair, PairEncoder

LONGEST = 1000
"""Most tokens of a generated response, where the critic takes that many."""

_EMOJI = "😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇳 🚀🚀 🤷🏿‍♀️ ❤️ 🧑‍🚀 1️⃣ 😂😂😂 ✅ 🐍 ☕️ 🎉 "


def default_pairs(encoder: PairEncoder, count: int, *, seed: int) -> list[Pair]:
    """Distinct pairs of four kinds in turn, their lengths spread evenly on a logarithmic scale.

    Args:
        encoder: The critic's: a response is cut to a number of its tokens, and no pair is longer than it takes.
        count: Number of pairs.
        seed: Of the draw.
    """
    draw = random.Random(seed)
    english, chinese = packaged_rows("train"), packaged_rows("zh")
    words = "\n".join(text for _, text in english)
    streams = [
        words,
        "".join(text for _, text in chinese),
        "".join(part + _EMOJI for part in words.split(".")),
        "\n".join(own_sources()),
    ]
    pairs: list[Pair] = []
    for number in range(count):
        kind = number % len(streams)
        prompt, _ = draw.choice(chinese if kind == 1 else english)
        messages = (Message(role="user", content=f"{number}: {prompt}"),)
        room = encoder.max_tokens - len(encoder.chat.prompt_ids(messages))
        if room < 1:
            raise DataError(
                f"the critic takes {encoder.max_tokens} tokens, and a prompt alone has more",
                hint="give pairs of your own with --pairs",
            )
        wanted = round(min(LONGEST, room) ** (number / max(1, count - 1)))
        pairs.append(Pair(messages, _piece(streams[kind], wanted, encoder.chat, draw)))
    draw.shuffle(pairs)
    return pairs


def read_pairs(path: Path, encoder: PairEncoder, *, count: int, seed: int) -> tuple[list[Pair], int]:
    """Pairs of a JSONL file such as ``gad-ray score`` takes.

    Args:
        path: The file.
        encoder: The critic's.
        count: Draw so many, if there are more.
        seed: Of the draw.

    Returns:
        The pairs, and how many of the file were left out because they are too long for the critic.

    Raises:
        DataError: If a row cannot be used, or none is left.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            rows = list(rows_of(lines, name=str(path)))
    except OSError as error:
        raise DataError(
            f"cannot be opened: {error.strerror}", where=str(path), hint="check the path"
        ) from error
    found = pairs_of(rows)
    usable = [pair for pair in found if len(encoder.tokenize(pair)) <= encoder.max_tokens]
    if not usable:
        raise DataError(
            "no pair is left that the critic can take", where=str(path), hint="give shorter texts"
        )
    drawn = usable if len(usable) <= count else random.Random(seed).sample(usable, count)
    return drawn, len(found) - len(usable)


def as_rows(pairs: Sequence[Pair]) -> str:
    """Pairs as JSONL for ``gad-ray score``."""
    rows = [
        {
            "messages": [{"role": message.role, "content": message.content} for message in pair.messages],
            "response": pair.response,
        }
        for pair in pairs
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _piece(stream: str, tokens: int, chat: ChatFormat, draw: random.Random) -> str:
    """So many tokens of a text from some place on; a few more or less where it is cut within a word."""
    start = draw.randrange(max(1, len(stream) - 8 * tokens))
    text = stream[start : start + 8 * tokens + 8].lstrip()
    ends = chat.response_ends(text)
    piece = text[: ends[min(tokens, len(ends)) - 1]] if ends else ""
    while len(chat.response_ids(piece)) > tokens and len(piece) > 1:
        piece = piece[:-1]
    return piece
