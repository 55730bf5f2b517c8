"""Rows end to end: every token has its place, and a prompt that rows share is laid once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from gad_ray.core.shared_prompts import (
    Span,
    pack_with_shared_prompts,
    packed_tokens,
    plan_by_size,
    plan_packed_batches,
)


@dataclass(frozen=True)
class OneRow:
    ids: NDArray[np.int32]
    start: int


def row(prompt: list[int], answer: list[int]) -> OneRow:
    return OneRow(np.asarray(prompt + answer, dtype=np.int32), len(prompt))


A, B = [1, 2, 3], [4, 5]
ROWS = [row(A, [10, 11]), row(B, [12]), row(A, [13]), row([6], [14, 15, 16])]


def test_a_shared_prompt_is_laid_once_and_every_row_finds_its_tokens() -> None:
    packed = pack_with_shared_prompts(ROWS)
    assert packed.ids.tolist() == [1, 2, 3, 10, 11, 13, 4, 5, 12, 6, 14, 15, 16]
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2, 0, 1, 2, 3]
    # A row that has its prompt to itself is laid as one that shares it.
    assert packed.spans == (
        *(Span(0, 3), Span(3, 5, (0, 3)), Span(5, 6, (0, 3))),
        *(Span(6, 8), Span(8, 9, (6, 8)), Span(9, 10), Span(10, 13, (9, 10))),
    )
    for one, places in zip(ROWS, packed.places, strict=True):
        assert packed.ids[places].tolist() == one.ids.tolist()
        assert packed.positions[places].tolist() == list(range(len(one.ids)))
    assert packed_tokens(ROWS) == len(packed.ids) == 13


def test_rows_without_a_prompt_share_nothing() -> None:
    packed = pack_with_shared_prompts([row([], [1, 2]), row([], [1])])
    assert packed.spans == (Span(0, 2), Span(2, 3))


@pytest.mark.parametrize("budget", [1, 6, 7, 9, 13, 100])
def test_passes_hold_every_row_once_and_keep_to_the_budget(budget: int) -> None:
    plans = plan_packed_batches(ROWS, max_tokens=budget)
    assert sorted(int(i) for plan in plans for i in plan) == [0, 1, 2, 3]
    for plan in plans:
        assert len(plan) == 1 or packed_tokens([ROWS[i] for i in plan]) <= budget


def test_a_group_that_fits_is_not_divided_and_one_that_does_not_takes_its_prompt_along() -> None:
    group = [row(A, [7] * 4) for _ in range(5)]
    assert [len(plan) for plan in plan_packed_batches(group, max_tokens=23)] == [5]
    assert [len(plan) for plan in plan_packed_batches(group, max_tokens=11)] == [2, 2, 1]


def test_what_is_larger_than_the_budget_goes_alone() -> None:
    assert plan_by_size([3, 20, 5, 2], max_tokens=10) == [[1], [2, 0, 3]]
