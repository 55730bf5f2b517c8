"""Rows end to end in one forward pass: nothing is padded, and a prompt that several rows begin with is computed once.

    prompt A │ answer A1 │ answer A2 │ answer A3 │ row B │ prompt C │ answer C1 │ answer C2

An answer attends to its prompt and to itself; its positions go on from the prompt's. Everything here is arithmetic on
token ids; the attention is in :mod:`gad_ray.models.sequence_packing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Row(Protocol):
    """Token ids of a prompt and a response; from ``start`` on they are the response."""

    @property
    def ids(self) -> NDArray[np.int32]:
        """int32 tokens."""
        ...

    @property
    def start(self) -> int:
        """Tokens of the prompt."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens that attend to each other, causally.

    Attributes:
        begin: Place of the first.
        end: Place behind the last.
        prompt: Places (first, behind the last) of a prompt before them that they attend to as well, if any.
    """

    begin: int
    end: int
    prompt: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows laid end to end.

    Attributes:
        ids: [tokens] int64 token ids.
        positions: [tokens] int64 position of each in its row.
        spans: Who attends to whom, in the order of the tokens.
        places: For each row, where each of its tokens stands.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    spans: tuple[Span, ...]
    places: tuple[NDArray[np.int64], ...]


def pack_with_shared_prompts(rows: Sequence[Row]) -> PackedRows:
    """Lay rows end to end, equal prompts once.

    Args:
        rows: At least one.
    """
    ids: list[NDArray[np.int32]] = []
    positions: list[NDArray[np.int64]] = []
    spans: list[Span] = []
    places: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * len(rows)
    here = 0

    def lay(
        tokens: NDArray[np.int32], first: int, prompt: tuple[int, int] | None = None
    ) -> NDArray[np.int64]:
        nonlocal here
        ids.append(tokens)
        positions.append(np.arange(first, first + len(tokens), dtype=np.int64))
        spans.append(Span(here, here + len(tokens), prompt))
        here += len(tokens)
        return np.arange(here - len(tokens), here, dtype=np.int64)

    for members in by_prompt(rows):
        start = rows[members[0]].start
        if start == 0:
            for i in members:
                places[i] = lay(rows[i].ids, 0)
            continue
        # Also of a row that has its prompt to itself: its rounding does not depend on who shares it.
        prompt = lay(rows[members[0]].ids[:start], 0)
        for i in members:
            answer = lay(rows[i].ids[start:], start, (int(prompt[0]), int(prompt[-1]) + 1))
            places[i] = np.concatenate([prompt, answer])
    return PackedRows(
        ids=np.concatenate(ids).astype(np.int64),
        positions=np.concatenate(positions),
        spans=tuple(spans),
        places=tuple(places),
    )


def by_prompt(rows: Sequence[Row]) -> list[list[int]]:
    """Places of the rows under each prompt, in order of appearance."""
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(np.asarray(row.ids[: row.start]).tobytes(), []).append(i)
    return list(groups.values())


def packed_tokens(rows: Sequence[Row]) -> int:
    """Tokens that a forward pass over these rows computes."""
    answers = sum(len(row.ids) - row.start for row in rows)
    return answers + sum(rows[members[0]].start for members in by_prompt(rows))


def plan_packed_batches(rows: Sequence[Row], *, max_tokens: int) -> list[NDArray[np.int64]]:
    """Split rows into passes of at most ``max_tokens`` tokens, rows under one prompt together as far as they fit.

    Args:
        rows: The rows.
        max_tokens: Budget of one pass, a shared prompt counted once. A single row beyond it gets a pass of its own.

    Returns:
        Index arrays that together hold every row exactly once, the largest pass first.
    """
    pieces, sizes = cut_by_prompt(rows, max_tokens=max_tokens)
    return [
        np.asarray([i for piece in members for i in pieces[piece]], dtype=np.int64)
        for members in plan_by_size(sizes, max_tokens=max_tokens)
    ]


def cut_by_prompt(rows: Sequence[Row], *, max_tokens: int) -> tuple[list[list[int]], list[int]]:
    """Rows under one prompt together as far as they fit.

    Args:
        rows: The rows.
        max_tokens: Most tokens of a piece, its prompt counted once. A single row beyond it is a piece of its own.

    Returns:
        Lists of indices that together hold every row exactly once, and the tokens that each computes.
    """
    pieces: list[list[int]] = []
    sizes: list[int] = []
    for members in by_prompt(rows):
        start = rows[members[0]].start
        piece: list[int] = []
        size = start
        for i in members:
            answer = len(rows[i].ids) - start
            # Rows without a prompt have nothing in common.
            if piece and (size + answer > max_tokens or start == 0):
                pieces.append(piece)
                sizes.append(size)
                piece, size = [], start
            piece.append(i)
            size += answer
        pieces.append(piece)
        sizes.append(size)
    return pieces, sizes


def plan_by_size(sizes: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Put things of these sizes into batches of at most ``max_tokens`` (first fit, the largest first).

    Args:
        sizes: Tokens of each. What is larger than the budget gets a batch of its own.
        max_tokens: Budget of one batch.

    Returns:
        Lists of indices that together hold each exactly once, the batch with the largest thing first.
    """
    batches: list[list[int]] = []
    filled: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        place = next((b for b, tokens in enumerate(filled) if tokens + sizes[i] <= max_tokens), None)
        if place is None:
            batches.append([])
            filled.append(0)
            place = len(batches) - 1
        batches[place].append(i)
        filled[place] += sizes[i]
    return batches
