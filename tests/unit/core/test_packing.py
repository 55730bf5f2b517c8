import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_ray.core.packing import (
    pad_rows,
    plan_even_batches,
    plan_group_batches,
    plan_micro_batches,
    plan_tight_batches,
)

LENGTHS = st.lists(st.integers(min_value=0, max_value=50), max_size=40)
GROUPS = st.lists(st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=5), max_size=15)


@given(lengths=LENGTHS, max_tokens=st.integers(min_value=1, max_value=200))
def test_micro_batches_hold_every_row_once_and_stay_within_the_budget(lengths: list[int], max_tokens: int):
    batches = plan_micro_batches(lengths, max_tokens=max_tokens)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= max_tokens


def test_the_longest_rows_come_first_together():
    # Budget 12: 5 + 5 fit (2 · 5), then 4, 3, 1 (3 · 4).
    batches = plan_micro_batches([3, 5, 1, 5, 4], max_tokens=12)
    assert [batch.tolist() for batch in batches] == [[1, 3], [4, 0, 2]]


def padded_tokens(lengths: list[int], batches: list[np.ndarray], pass_tokens: int) -> int:
    return sum(len(batch) * max(lengths[i] for i in batch) + pass_tokens for batch in batches)


def cheapest(widths: list[int], max_tokens: int, pass_tokens: int) -> int:
    """Of rows sorted by length, by trying every first batch."""
    if not widths:
        return 0
    most = max(1, max_tokens // max(1, widths[0]))
    return min(
        count * widths[0] + pass_tokens + cheapest(widths[count:], max_tokens, pass_tokens)
        for count in range(1, min(most, len(widths)) + 1)
    )


@given(
    lengths=st.lists(st.integers(min_value=0, max_value=50), max_size=9),
    max_tokens=st.integers(min_value=1, max_value=200),
    pass_tokens=st.integers(min_value=0, max_value=60),
)
def test_tight_batches_hold_every_row_once_within_the_budget_and_nothing_is_cheaper(
    lengths: list[int], max_tokens: int, pass_tokens: int
):
    batches = plan_tight_batches(lengths, max_tokens=max_tokens, pass_tokens=pass_tokens)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= max_tokens
    wanted = cheapest(sorted(lengths, reverse=True), max_tokens, pass_tokens)
    assert padded_tokens(lengths, batches, pass_tokens) == wanted


@given(
    lengths=LENGTHS,
    max_tokens=st.integers(min_value=1, max_value=200),
    at_once=st.integers(min_value=1, max_value=3),
    least_tokens=st.integers(min_value=1, max_value=60),
)
def test_even_batches_hold_every_row_once_within_the_budget_and_differ_by_a_row_at_most(
    lengths: list[int], max_tokens: int, at_once: int, least_tokens: int
):
    batches = plan_even_batches(lengths, max_tokens=max_tokens, at_once=at_once, least_tokens=least_tokens)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    sizes = [sum(lengths[i] for i in batch) for batch in batches]
    assert sizes == sorted(sizes, reverse=True)
    for batch, size in zip(batches, sizes, strict=True):
        assert len(batch) == 1 or size <= max_tokens
        fitting = [length for length in lengths if length <= max_tokens]
        assert len(batch) == 1 or size - min(sizes) <= max(fitting)


def test_even_batches_are_a_multiple_of_those_that_are_computed_at_once_unless_they_got_too_small():
    def sizes(lengths: list[int], **more: int) -> list[int]:
        plans = plan_even_batches(lengths, max_tokens=100, **more)
        return [sum(lengths[i] for i in plan) for plan in plans]

    assert sizes([10] * 25) == [90, 80, 80]
    assert sizes([10] * 25, at_once=2) == [70, 60, 60, 60]
    assert sizes([40, 30, 20], at_once=2) == [50, 40]
    assert sizes([40, 30, 20], at_once=2, least_tokens=45) == [50, 40]
    assert sizes([40, 30, 20], at_once=2, least_tokens=46) == [90]
    assert sizes([300, 10, 10]) == [300, 20]


def test_a_batch_is_split_where_its_padding_is_more_than_a_pass():
    lengths = [100, 10, 10, 10]
    assert len(plan_tight_batches(lengths, max_tokens=1000, pass_tokens=269)) == 2
    assert len(plan_tight_batches(lengths, max_tokens=1000, pass_tokens=271)) == 1


@given(groups=GROUPS, max_tokens=st.integers(min_value=1, max_value=300))
def test_group_batches_never_divide_a_group_and_stay_within_the_budget(
    groups: list[list[int]], max_tokens: int
):
    batches = plan_group_batches(groups, max_tokens=max_tokens)
    assert sorted(g for batch in batches for g in batch) == list(range(len(groups)))
    for batch in batches:
        rows = [length for g in batch for length in groups[g]]
        assert len(batch) == 1 or len(rows) * max(rows) <= max_tokens


def test_groups_that_fit_share_a_batch():
    assert plan_group_batches([[4, 4], [3], [1, 1]], max_tokens=20) == [[0, 1, 2]]
    assert plan_group_batches([[4, 4], [3], [1, 1]], max_tokens=12) == [[0, 1], [2]]


def test_rows_are_padded_on_the_right_only():
    padded = pad_rows([[5, 6, 7], np.asarray([8], dtype=np.int32)], pad_id=2)
    assert padded.tolist() == [[5, 6, 7], [8, 2, 2]]


@pytest.mark.parametrize("plan", [plan_micro_batches, plan_group_batches])
def test_nothing_makes_no_batches(plan):
    assert plan([], max_tokens=10) == []
