from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_ray.data.cursor import PromptCursor
from gad_ray.errors import CheckpointError, DataError


def ids(num_rows: int) -> list[str]:
    return [f"row-{i}" for i in range(num_rows)]


def cursor(num_rows: int, batch_size: int, seed: int = 0) -> PromptCursor:
    return PromptCursor(ids(num_rows), seed=seed, batch_size=batch_size)


sizes = st.integers(1, 30).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(1, rows)))


@settings(max_examples=150, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**40), num_batches=st.integers(1, 60))
def test_every_row_comes_exactly_once_an_epoch_and_no_batch_repeats_a_row(
    size: tuple[int, int], seed: int, num_batches: int
) -> None:
    num_rows, batch_size = size
    drawn = cursor(num_rows, batch_size, seed)
    seen: Counter[int] = Counter()
    for number in range(1, num_batches + 1):
        batch = drawn.next_batch()
        assert len(batch) == len(set(batch)) == batch_size
        seen.update(batch)
        # Full epochs behind us give each row once; the one under way gives some rows once more.
        epochs, rest = divmod(number * batch_size, num_rows)
        counts = Counter(seen[row] for row in range(num_rows))
        assert counts == Counter({epochs: num_rows - rest, epochs + 1: rest})
        assert drawn.epoch == pytest.approx(number * batch_size / num_rows)


@settings(max_examples=150, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**40), before=st.integers(0, 40))
def test_a_resume_at_any_point_draws_what_an_uninterrupted_run_draws(
    size: tuple[int, int], seed: int, before: int
) -> None:
    num_rows, batch_size = size
    whole = cursor(num_rows, batch_size, seed)
    for _ in range(before):
        whole.next_batch()
    state = json.loads(json.dumps(whole.state()))
    resumed = PromptCursor.from_state(state, ids(num_rows), seed=seed, batch_size=batch_size)
    assert resumed.epoch == whole.epoch
    assert resumed.state() == state
    assert [resumed.next_batch() for _ in range(20)] == [whole.next_batch() for _ in range(20)]


@settings(max_examples=100, deadline=None)
@given(size=sizes, before=st.integers(0, 20), new_size=st.integers(1, 30))
def test_a_resume_with_another_batch_size_neither_loses_nor_repeats_a_row(
    size: tuple[int, int], before: int, new_size: int
) -> None:
    num_rows, batch_size = size
    new_size = min(new_size, num_rows)
    first = cursor(num_rows, batch_size)
    seen = Counter(row for _ in range(before) for row in first.next_batch())
    second = PromptCursor.from_state(first.state(), ids(num_rows), seed=0, batch_size=new_size)
    for _ in range(12):
        seen.update(second.next_batch())
    assert max(seen.values()) - min(seen[row] for row in range(num_rows)) <= 1


def test_the_order_is_the_same_on_every_machine() -> None:
    drawn = cursor(7, 7, seed=3)
    assert drawn.next_batch() == (2, 6, 1, 3, 5, 4, 0)
    assert drawn.next_batch() == (4, 3, 5, 1, 6, 2, 0)


def test_seeds_and_epochs_differ_in_their_order() -> None:
    first, other = cursor(50, 50, seed=1), cursor(50, 50, seed=2)
    orders = {first.next_batch(), first.next_batch(), other.next_batch(), other.next_batch()}
    assert len(orders) == 4


def test_a_batch_over_the_border_of_epochs_defers_the_rows_it_holds() -> None:
    drawn = cursor(5, 4)
    first, second, third = drawn.next_batch(), drawn.next_batch(), drawn.next_batch()
    last_of_first_epoch = second[0]
    assert set(first) | {last_of_first_epoch} == set(range(5))
    assert sorted([*second[1:], *third[:2]]) == [0, 1, 2, 3, 4]


def test_drawing_after_a_state_was_taken_does_not_change_the_state() -> None:
    drawn = cursor(5, 4)
    drawn.next_batch()
    state = drawn.state()
    before = json.dumps(state)
    drawn.next_batch()
    drawn.next_batch()
    assert json.dumps(state) == before


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match="a batch takes 4 prompts, but there are 3 rows"):
        cursor(3, 4)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        cursor(3, 0)


@pytest.mark.parametrize("changed", [["a", "b"], ["b", "a", "c"], ["a", "b", "c", "d"], ["ab", "", "c"]])
def test_a_resume_with_changed_rows_is_refused(changed: list[str]) -> None:
    state = PromptCursor(["a", "b", "c"], seed=0, batch_size=1).state()
    with pytest.raises(CheckpointError, match="the training rows have changed"):
        PromptCursor.from_state(state, changed, seed=0, batch_size=1)


def test_a_resume_with_another_seed_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"data\.seed=0, not 1"):
        PromptCursor.from_state(cursor(3, 1).state(), ids(3), seed=1, batch_size=1)


@pytest.mark.parametrize(
    "damage",
    [
        {"epoch": -1},
        {"epoch": "0"},
        {"position": 4},
        {"position": True},
        {"position": None},
        {"deferred": None},
        {"deferred": [99]},
        {"deferred": ["x"]},
        {"position": 3, "deferred": [0, 0]},
        {"extra": 1},
    ],
)
def test_a_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    state = cursor(3, 1).state() | damage
    with pytest.raises(CheckpointError, match="data position"):
        PromptCursor.from_state(state, ids(3), seed=0, batch_size=1)


def test_a_state_without_a_part_is_refused() -> None:
    state = cursor(3, 1).state()
    del state["deferred"]
    with pytest.raises(CheckpointError, match="cannot be read"):
        PromptCursor.from_state(state, ids(3), seed=0, batch_size=1)
