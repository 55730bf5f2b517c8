"""Micro-batches: rows of similar length, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor


def plan_micro_batches(
    lengths: Sequence[int] | NDArray[np.int64], *, max_tokens: int
) -> list[NDArray[np.int64]]:
    """Split rows into micro-batches of at most ``max_tokens`` tokens, padding included.

    Rows are sorted by length, longest first, so that little is padded and the largest batch comes first:
    if memory does not suffice, it is seen at once. A row longer than the budget gets a batch of its own.

    Args:
        lengths: Tokens of each row.
        max_tokens: Budget of one micro-batch.

    Returns:
        Index arrays that together hold every row exactly once.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        rows_that_fit = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows_that_fit])
        start += rows_that_fit
    return batches


def plan_tight_batches(
    lengths: Sequence[int] | NDArray[np.int64], *, max_tokens: int, pass_tokens: int
) -> list[NDArray[np.int64]]:
    """As :func:`plan_micro_batches`, split further where that spares more padding than the additional passes cost.

    Of all ways to cut the sorted rows it is the one with the fewest padded tokens, each pass counted as
    ``pass_tokens`` more.

    Args:
        lengths: Tokens of each row.
        max_tokens: Budget of one micro-batch.
        pass_tokens: What a pass costs however few tokens it has, in tokens.

    Returns:
        Index arrays that together hold every row exactly once.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    widths = np.asarray(lengths, dtype=np.int64)[order]
    # From the shortest row to the longest: what all rows from this one on cost, and how many are in its batch.
    costs = np.zeros(len(order) + 1, dtype=np.int64)
    sizes = np.zeros(len(order), dtype=np.int64)
    for row in range(len(order) - 1, -1, -1):
        most = max(1, max_tokens // max(1, int(widths[row])))
        counts = np.arange(1, min(most, len(order) - row) + 1)
        choices = counts * widths[row] + costs[row + counts]
        best = int(np.argmin(choices))
        costs[row], sizes[row] = choices[best] + pass_tokens, counts[best]
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        batches.append(order[start : start + int(sizes[start])])
        start += int(sizes[start])
    return batches


def plan_even_batches(
    lengths: Sequence[int] | NDArray[np.int64], *, max_tokens: int, at_once: int = 1, least_tokens: int = 1
) -> list[NDArray[np.int64]]:
    """Split rows that go end to end, without padding, into batches of much the same size.

    The longest row that is left goes to the smallest batch (Graham, 1969).

    Args:
        lengths: Tokens of each row.
        max_tokens: Budget of one micro-batch. A row longer than that gets a batch of its own.
        at_once: Batches that are computed at the same time: their number is a multiple of it if the rows fit into so many,
        least_tokens: unless they had fewer tokens than this.

    Returns:
        Index arrays that together hold every row exactly once, the largest batch first.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    too_long = int((sizes > max_tokens).sum())
    large, rest = [[int(row)] for row in order[:too_long]], order[too_long:]
    tokens = int(sizes[rest].sum())
    count = max(1, -(-tokens // max_tokens))
    if tokens >= at_once * least_tokens:
        count = -(-count // at_once) * at_once
    while True:
        batches: list[list[int]] = [[] for _ in range(count)]
        filled = [0] * count
        for row in rest:
            place = filled.index(min(filled))
            batches[place].append(int(row))
            filled[place] += int(sizes[row])
        if max(filled) <= max_tokens:
            break
        count += 1
    largest_first = sorted(range(count), key=lambda place: -filled[place])
    even = [batches[place] for place in largest_first if batches[place]]
    return [np.asarray(batch) for batch in large + even]


def plan_group_batches(lengths: Sequence[Sequence[int]], *, max_tokens: int) -> list[list[int]]:
    """Split groups of rows into micro-batches within the budget, never dividing a group.

    Args:
        lengths: For each group, the tokens of its rows.
        max_tokens: Budget of one micro-batch, padding included. A larger group gets a batch of its own.

    Returns:
        Lists of group indices that together hold every group exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda g: -max(lengths[g], default=0))
    batches: list[list[int]] = []
    rows = longest = 0
    for group in order:
        size, width = len(lengths[group]), max(lengths[group], default=0)
        if not batches or (rows + size) * max(longest, width) > max_tokens:
            batches.append([])
            rows = longest = 0
        batches[-1].append(group)
        rows, longest = rows + size, max(longest, width)
    return batches


def pad_rows(
    rows: Sequence[Sequence[int] | NDArray[np.int32]], *, pad_id: int, device: torch.device | None = None
) -> Int[Tensor, "batch seq"]:
    """Rows of token ids as one int64 tensor, padded on the right.

    Causal attention never looks to the right, so that padding there changes no row's result and no
    attention mask is needed.
    """
    width = max(len(row) for row in rows)
    padded = np.full((len(rows), width), pad_id, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded).to(device)
