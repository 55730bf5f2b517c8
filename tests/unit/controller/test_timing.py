"""Where a step's seconds go: to its parts, and what none of them took to exchange."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gad_ray.controller import timing
from gad_ray.controller.timing import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What the time is; a test sets it."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_what_no_part_took_is_exchange_and_all_together_are_the_step(clock: list[float]) -> None:
    watch = Stopwatch()
    with watch("update_critic"):
        clock[0] += 3.0
    # Of the wait of 3 s, the critic says that it worked for 2.
    watch.cap("update_critic", 2.0)
    with watch("update_actor"):
        clock[0] += 4.0
    # It began before it was waited for.
    watch.cap("update_actor", 9.0)
    clock[0] += 0.5
    told = watch.timing()
    assert told == {
        "timing_s/update_critic": 2.0,
        "timing_s/update_actor": 4.0,
        "timing_s/exchange": 1.5,
        "timing_s/step": 7.5,
    }


def test_parts_that_overlap_leave_no_exchange_rather_than_less(clock: list[float]) -> None:
    watch = Stopwatch()
    clock[0] += 1.0
    watch.add({"timing_s/rollout": 5.0})
    assert watch.timing()["timing_s/exchange"] == 0.0
