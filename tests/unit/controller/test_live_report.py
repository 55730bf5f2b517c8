from __future__ import annotations

import threading
from pathlib import Path

from gad_ray.controller.live_report import LiveReport
from tests.processes import wait_until


class Writing:
    """Writes nothing, but notes when it was asked to; it takes ``seconds`` of a clock of its own."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.times: list[float] = []
        self.trouble: Exception | None = None
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, root: Path) -> None:
        self.times.append(self.now)
        self.begun.set()
        assert self.may_end.wait(30.0)
        self.now += self.seconds
        if self.trouble is not None:
            raise self.trouble

    def report(self, *, refresh_s: float) -> LiveReport:
        return LiveReport(Path(), refresh_s=refresh_s, write=self, clock=lambda: self.now)


def settle() -> None:
    """Until no report is being written."""

    def idle() -> bool:
        return not any(thread.name == "report" for thread in threading.enumerate())

    wait_until(idle, what="the report's thread", deadline_s=300.0)


def test_the_report_comes_with_the_first_step_and_then_only_so_often() -> None:
    writing = Writing(seconds=0.5)
    report = writing.report(refresh_s=60.0)
    for now in (0.0, 30.0, 60.0, 60.5, 100.0, 121.0):
        writing.now = now
        assert report.step_done() is None
        settle()
    assert writing.times == [0.0, 60.5, 121.0]


def test_a_report_that_takes_long_is_refreshed_more_rarely() -> None:
    writing = Writing(seconds=4.0)
    report = writing.report(refresh_s=60.0)
    for now in (0.0, 100.0, 203.0, 204.0):
        writing.now = now
        report.step_done()
        settle()
    assert writing.times == [0.0, 204.0], "a fiftieth of the time is spent on it"


def test_no_step_waits_for_a_report_and_no_second_one_begins_beside_it() -> None:
    writing = Writing()
    writing.may_end.clear()
    report = writing.report(refresh_s=1.0)
    report.step_done()
    assert writing.begun.wait(30.0)
    for now in (10.0, 20.0):
        writing.now = now
        report.step_done()
    assert writing.times == [0.0]
    writing.may_end.set()
    assert report.finish() is None
    assert len(writing.times) == 2, "the last one is written after the one that was under way"


def test_with_zero_only_the_last_report_is_written() -> None:
    writing = Writing()
    report = writing.report(refresh_s=0.0)
    report.step_done()
    settle()
    assert writing.times == []
    report.finish()
    assert writing.times == [0.0]


def test_a_report_that_fails_is_told_once_and_again_when_it_fails_otherwise() -> None:
    writing = Writing()
    writing.trouble = OSError("disk full")
    report = writing.report(refresh_s=1.0)
    told: list[str | None] = []
    for now in (0.0, 2.0, 4.0):
        writing.now = now
        told.append(report.step_done())
        settle()
    writing.trouble = ValueError("broken")
    assert told == [None, "OSError: disk full", None]
    assert report.finish() == "ValueError: broken"
    writing.trouble = None
    assert report.finish() is None
