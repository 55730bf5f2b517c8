"""The watch over the time between two steps."""

from __future__ import annotations

from gad_ray.controller.stall_watchdog import StallWatchdog


class Hour:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_long_wait_is_reported_once_and_again_after_the_next_step() -> None:
    clock, waits = Hour(), list[float]()

    def report(seconds: float) -> bool:
        waits.append(seconds)
        return seconds > 60.0

    watch = StallWatchdog(report, clock=clock)
    watch.look()
    assert waits == []
    watch.begin()
    for clock.now in (130.0, 170.0, 200.0):
        watch.look()
    assert waits == [30.0, 70.0]
    watch.begin()
    clock.now = 290.0
    watch.look()
    assert waits == [30.0, 70.0, 90.0]


def test_nothing_is_missed_while_it_rests() -> None:
    clock, waits = Hour(), list[float]()
    watch = StallWatchdog(lambda seconds: bool(waits.append(seconds)), clock=clock)
    watch.begin()
    watch.rest()
    clock.now = 1e6
    watch.look()
    assert waits == []


def test_the_thread_ends_with_the_context() -> None:
    with StallWatchdog(lambda _: False) as watch:
        thread = watch._thread
        assert thread.is_alive()
    assert not thread.is_alive()
