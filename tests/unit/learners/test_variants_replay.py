"""The buffer of past responses alone: how much it keeps, what it draws, and that it goes on as it was."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_ray.batch import Message
from gad_ray.config.critic import ReplayConfig
from gad_ray.learners.replay import PastResponse, ReplayBuffer


def past(step: int, count: int = 4) -> list[PastResponse]:
    return [
        PastResponse(
            messages=(Message(role="system", content="S"), Message(role="user", content=f"問 {i}")),
            teacher="T\u2028\n",
            response=f"{step}.{i}",
            step=step,
        )
        for i in range(count)
    ]


def buffer_of(*, seed: int = 0, **changed: object) -> ReplayBuffer:
    return ReplayBuffer(ReplayConfig(**changed), seed=seed)  # type: ignore[arg-type]


@given(ratio=st.floats(0.05, 0.95), num_fresh=st.integers(1, 50), kept=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_the_share_of_what_is_drawn_is_the_ratio_or_all_there_is(
    ratio: float, num_fresh: int, kept: int
) -> None:
    buffer = buffer_of(size=100, ratio=ratio)
    buffer.add(past(1, kept))
    drawn = buffer.draw(num_fresh=num_fresh, step=2)
    assert len({one.response for one in drawn}) == len(drawn)
    if len(drawn) < kept:
        assert abs(len(drawn) - ratio * (len(drawn) + num_fresh)) <= 1.0
    assert len(buffer) == kept


def test_an_empty_buffer_gives_nothing() -> None:
    assert buffer_of().draw(num_fresh=8, step=1) == []


def test_the_oldest_responses_make_room() -> None:
    buffer = buffer_of(size=6, ratio=0.9)
    for step in (1, 2):
        buffer.add(past(step))
    assert [one.response for one in buffer.draw(num_fresh=9, step=3)] == [
        "1.2",
        "1.3",
        "2.0",
        "2.1",
        "2.2",
        "2.3",
    ]


def test_responses_above_the_greatest_age_are_dropped() -> None:
    buffer = buffer_of(size=100, ratio=0.9, max_age=2)
    for step in (1, 2, 3):
        buffer.add(past(step, 1))
    assert [one.step for one in buffer.draw(num_fresh=9, step=4)] == [2, 3]
    assert len(buffer) == 2
    assert buffer.draw(num_fresh=9, step=6) == []


def test_equal_seeds_draw_equal_responses_and_others_do_not() -> None:
    drawn = []
    for seed in (0, 0, 1):
        buffer = buffer_of(seed=seed, size=1000, ratio=0.5)
        buffer.add(past(1, 500))
        drawn.append([one.response for one in buffer.draw(num_fresh=20, step=2)])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("filled", [0, 5])
def test_a_restored_buffer_draws_what_the_first_would_have_drawn(filled: int) -> None:
    first, second = buffer_of(size=50, ratio=0.3), buffer_of(seed=9, size=50, ratio=0.3)
    first.add(past(1, filled))
    first.draw(num_fresh=6, step=2)
    text, rng = first.state()
    second.load_state(text, json.loads(json.dumps(rng)))
    for step in range(3, 6):
        for buffer in (first, second):
            buffer.add(past(step))
        one, other = (buffer.draw(num_fresh=6, step=step) for buffer in (first, second))
        assert one == other
        assert len(first) == len(second)


def test_a_restored_buffer_keeps_to_its_size() -> None:
    first, second = buffer_of(size=5), buffer_of(size=5)
    first.add(past(1, 3))
    second.load_state(*first.state())
    second.add(past(2, 8))
    assert len(second) == 5
