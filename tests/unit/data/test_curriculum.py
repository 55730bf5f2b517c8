from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_ray.batch import PromptFigures
from gad_ray.config.curriculum import (
    CurriculumConfig,
    DifficultyCurriculum,
    GapCurriculum,
    SpreadCurriculum,
)
from gad_ray.data.prompt_sampler import PromptSampler
from gad_ray.errors import CheckpointError, DataError


def ids(num_rows: int) -> list[str]:
    return [f"row-{i}" for i in range(num_rows)]


def drawer(
    num_rows: int, batch_size: int, curriculum: CurriculumConfig | None, **options: Any
) -> PromptSampler:
    return PromptSampler(ids(num_rows), seed=0, batch_size=batch_size, curriculum=curriculum, **options)


def figures(
    rows: Sequence[int], *, gaps: Sequence[float] | None = None, spread: bool = True
) -> PromptFigures:
    return PromptFigures(
        example_ids=tuple(f"row-{row}" for row in rows),
        gap=np.asarray(gaps if gaps is not None else [0.0] * len(rows), dtype=np.float32),
        has_spread=np.full(len(rows), spread),
    )


def epoch_of(drawn: PromptSampler, num_batches: int, *, game_step: int = 0) -> list[int]:
    return [row for _ in range(num_batches) for row in drawn.next_batch(game_step)]


# -- by difficulty -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "wanted"), [("ascending", [3, 0, 2, 1]), ("descending", [1, 2, 0, 3])])
def test_every_epoch_is_in_the_order_of_difficulty(order: Any, wanted: list[int]) -> None:
    drawn = drawer(4, 2, DifficultyCurriculum(order=order), difficulty=[2.0, 9.5, 3.0, -1.0])
    assert epoch_of(drawn, 4) == [*wanted, *wanted]


def test_rows_of_equal_difficulty_are_shuffled_anew_in_every_epoch() -> None:
    drawn = drawer(40, 20, DifficultyCurriculum(), difficulty=[i // 20 for i in range(40)])
    first, second = epoch_of(drawn, 2), epoch_of(drawn, 2)
    assert first != second
    assert set(first[:20]) == set(second[:20]) == set(range(20))


def test_shuffled_is_the_order_without_a_curriculum() -> None:
    shuffled = DifficultyCurriculum(order="shuffled", min=0.0)
    drawn = drawer(9, 3, shuffled, difficulty=list(range(9)))
    assert epoch_of(drawn, 6) == epoch_of(drawer(9, 3, None), 6)


# -- by gap ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "wanted"), [("ascending", [2, 0, 3, 1]), ("descending", [1, 3, 0, 2])])
def test_the_next_epoch_is_in_the_order_of_the_mean_gaps(order: Any, wanted: list[int]) -> None:
    drawn = drawer(4, 4, GapCurriculum(order=order))
    drawn.next_batch(0)
    drawn.observe(figures([0, 1, 2, 3], gaps=[1.0, 8.0, -3.0, 5.0]))
    # Means 1, 6, −3 and 4.5: neither the first nor the last figure alone gives this order.
    drawn.observe(figures([1, 3], gaps=[4.0, 4.0]))
    assert drawn.next_batch(0) == tuple(wanted)


def test_prompts_without_a_gap_come_before_those_that_have_one() -> None:
    drawn = drawer(6, 6, GapCurriculum())
    drawn.next_batch(0)
    drawn.observe(figures([0, 1, 2], gaps=[-9.0, -8.0, -7.0]))
    batch = drawn.next_batch(0)
    assert set(batch[:3]) == {3, 4, 5}
    assert batch[3:] == (0, 1, 2)


def test_an_epoch_holds_the_share_that_is_kept_and_no_other_row() -> None:
    drawn = drawer(10, 2, GapCurriculum(keep=0.41, order="descending"))
    assert len(set(epoch_of(drawn, 2))) == 4, "5 rows are kept; the fifth is in the third batch"
    drawn.observe(figures(range(10), gaps=list(range(10))))
    drawn.next_batch(0)
    assert set(epoch_of(drawn, 2)) <= {9, 8, 7, 6, 5}
    assert drawn.num_admitted(0) == 5


def test_kept_rows_are_shuffled_on_request() -> None:
    in_order = drawer(30, 10, GapCurriculum(keep=0.5))
    shuffled = drawer(30, 10, GapCurriculum(keep=0.5, shuffle=True))
    epochs: list[list[int]] = []
    for drawn in (in_order, shuffled):
        drawn.observe(figures(range(30), gaps=list(range(30))))
        epoch_of(drawn, 3)
        epochs.append(epoch_of(drawn, 3)[:10])
    assert sorted(epochs[0]) != sorted(epochs[1])
    assert set(epochs[1]) <= set(range(15))


def test_a_share_of_fewer_prompts_than_a_step_takes_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        DataError, match=r"data\.curriculum\.keep = 0\.3 leaves 3 of 10 prompts, and a step takes 4"
    ):
        drawer(10, 4, GapCurriculum(keep=0.3))


# -- those with spread first -------------------------------------------------------------------------------


def test_prompts_without_spread_are_skipped_in_the_phase_and_drawn_before_and_after_it() -> None:
    drawn = drawer(8, 2, SpreadCurriculum(steps=4))
    assert set(epoch_of(drawn, 4)) == set(range(8)), "the warm-up"
    drawn.observe(figures([0, 1, 2], spread=False))
    drawn.observe(figures([3, 4, 5, 6, 7]))
    in_phase = [row for step in range(1, 5) for row in drawn.next_batch(step)]
    assert set(in_phase) <= {3, 4, 5, 6, 7}
    assert drawn.num_admitted(4) == 5
    assert drawn.num_admitted(5) == 8
    after = [row for step in range(5, 15) for row in drawn.next_batch(step)]
    assert set(after) == set(range(8))


def test_the_latest_group_decides() -> None:
    drawn = drawer(4, 2, SpreadCurriculum(steps=9))
    drawn.observe(figures([0, 1], spread=False))
    drawn.observe(figures([1], spread=True))
    assert drawn.num_admitted(1) == 3


def test_a_phase_in_epochs_is_counted_in_steps_of_all_prompts() -> None:
    drawn = drawer(12, 4, SpreadCurriculum(epochs=2.0))
    drawn.observe(figures([0], spread=False))
    assert [drawn.num_admitted(step) for step in (0, 1, 6, 7)] == [12, 11, 11, 12]


def test_all_are_drawn_while_fewer_than_a_steps_prompts_have_spread() -> None:
    drawn = drawer(5, 3, SpreadCurriculum(steps=99))
    drawn.observe(figures([0, 1, 2], spread=False))
    assert drawn.num_admitted(1) == 5
    assert sorted(epoch_of(drawn, 5, game_step=1)) == sorted([*range(5)] * 3)


# -- refills -----------------------------------------------------------------------------------------------


def test_further_rows_are_others_and_the_epoch_loses_none() -> None:
    drawn = drawer(10, 4, None)
    seen: Counter[int] = Counter()
    for _ in range(5):
        rows = drawn.next_batch(1)
        rows += drawn.more(3, held=rows, game_step=1)
        rows += drawn.more(1, held=rows, game_step=1)
        assert len(set(rows)) == 8
        seen.update(rows)
    assert seen == Counter(dict.fromkeys(range(10), 4))


def test_fewer_rows_come_where_the_step_holds_all_others() -> None:
    drawn = drawer(6, 4, None)
    rows = drawn.next_batch(1)
    more = drawn.more(5, held=rows, game_step=1)
    assert set(rows) | set(more) == set(range(6))
    assert drawn.more(1, held=(*rows, *more), game_step=1) == ()


def test_a_refill_skips_what_the_phase_skips() -> None:
    drawn = drawer(9, 3, SpreadCurriculum(steps=5))
    drawn.observe(figures([0, 1], spread=False))
    rows = drawn.next_batch(1)
    assert not {0, 1} & {*rows, *drawn.more(4, held=rows, game_step=1)}


# -- position and resume -----------------------------------------------------------------------------------

CURRICULA: list[CurriculumConfig | None] = [
    None,
    DifficultyCurriculum(order="descending"),
    GapCurriculum(),
    GapCurriculum(order="descending", keep=0.6),
    GapCurriculum(keep=0.5, shuffle=True),
    SpreadCurriculum(steps=6),
]


def play(drawn: PromptSampler, steps: range, *, refill: int) -> list[tuple[int, ...]]:
    """Steps whose figures depend on prompt and step, each with a refill."""
    batches: list[tuple[int, ...]] = []
    for step in steps:
        rows = drawn.next_batch(step - 3)
        rows += drawn.more(refill, held=rows, game_step=step - 3)
        for row in rows:
            drawn.observe(figures([row], gaps=[(row * 7 + step) % 11 / 3], spread=(row + step) % 3 > 0))
        batches.append(rows)
    return batches


@pytest.mark.parametrize("curriculum", CURRICULA)
@settings(max_examples=25, deadline=None)
@given(batch_size=st.integers(1, 6), refill=st.integers(0, 5), before=st.integers(0, 12))
def test_a_resume_draws_what_an_unbroken_run_draws(
    curriculum: CurriculumConfig | None, batch_size: int, refill: int, before: int
) -> None:
    difficulty = [float(i % 5) for i in range(12)]
    whole = drawer(12, batch_size, curriculum, difficulty=difficulty)
    play(whole, range(1, before + 1), refill=refill)
    state = json.loads(json.dumps(whole.state()))
    resumed = drawer(12, batch_size, curriculum, difficulty=difficulty)
    resumed.load_state(state)
    assert resumed.epoch == whole.epoch
    assert json.loads(json.dumps(resumed.state())) == state
    later = range(before + 1, before + 12)
    assert play(resumed, later, refill=refill) == play(whole, later, refill=refill)


@settings(max_examples=100, deadline=None)
@given(
    num_rows=st.integers(1, 20),
    batch_size=st.integers(1, 20),
    refills=st.lists(st.integers(0, 25), max_size=20),
)
def test_whatever_is_refilled_every_row_comes_once_an_epoch(
    num_rows: int, batch_size: int, refills: list[int]
) -> None:
    batch_size = min(batch_size, num_rows)
    drawn = drawer(num_rows, batch_size, None)
    seen: Counter[int] = Counter()
    for refill in refills:
        rows = drawn.next_batch(1)
        rows += drawn.more(refill, held=rows, game_step=1)
        assert len(rows) == len(set(rows))
        assert len(rows) >= min(batch_size + refill, num_rows)
        seen.update(rows)
        counts = [seen[row] for row in range(num_rows)]
        assert max(counts) - min(counts) <= 1
        assert drawn.epoch == pytest.approx(sum(counts) / num_rows)


def test_an_earlier_position_goes_with_what_has_been_learned_since() -> None:
    drawn = drawer(8, 4, GapCurriculum())
    before = drawn.position()
    ahead = drawn.next_batch(1)
    drawn.observe(figures([0], gaps=[2.0]))
    state = drawn.state(before)
    resumed = drawer(8, 4, GapCurriculum())
    resumed.load_state(json.loads(json.dumps(state)))
    assert resumed.next_batch(1) == ahead
    assert resumed.state()["curriculum"] == drawn.state()["curriculum"]


@pytest.mark.parametrize(
    ("curriculum", "damage"),
    [
        (GapCurriculum(), {"curriculum": {"gap_counts": [0], "gap_sums": [0.0]}}),
        (GapCurriculum(), {"curriculum": {"gap_counts": ["0"] * 3, "gap_sums": [0.0] * 3}}),
        (GapCurriculum(), {"curriculum": 3}),
        (GapCurriculum(), {"order": [0, 0, 1]}),
        (GapCurriculum(), {"order": [0, 1, 7]}),
        (GapCurriculum(), {"order": "0, 1, 2"}),
        (SpreadCurriculum(steps=1), {"curriculum": {"without_spread": [3]}}),
        (SpreadCurriculum(steps=1), {"curriculum": {}}),
        (None, {"curriculum": {"without_spread": [1]}}),
    ],
)
def test_a_damaged_state_is_refused(curriculum: CurriculumConfig | None, damage: dict[str, Any]) -> None:
    drawn = drawer(3, 1, curriculum)
    with pytest.raises(CheckpointError, match="cannot be read"):
        drawn.load_state({**drawn.state(), **damage})
