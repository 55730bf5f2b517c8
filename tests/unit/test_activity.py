from __future__ import annotations

import io
import signal
import sys

import pytest

from gad_ray.activity import Teller, activity, current, doing, telling, waiting
from gad_ray.interrupt import StopRequest
from tests.processes import wait_until


class Clock:
    """Seconds as the test sets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_activity_is_a_line_when_it_begins_and_again_after_half_a_minute_of_silence() -> None:
    said: list[str] = []
    clock = Clock()
    teller = Teller(said.append, clock=clock)
    with teller.activity("loading the models"):
        clock.now = 29.0
        teller.look()
        assert said == ["loading the models"]
        with teller.waiting(lambda: "the models (policy-0)"):
            clock.now = 75.0
            teller.look()
            teller.look()  # it has just been said
            clock.now = 105.0
            teller.look()
        clock.now = 3700.0
        teller.look()
    clock.now = 9999.0
    teller.look()
    assert said[1:] == [
        "still loading the models: 1:15 so far; waiting 0:46 for the models (policy-0)",
        "still loading the models: 1:45 so far; waiting 1:16 for the models (policy-0)",
        "still loading the models: 1:01:40 so far",
    ]


def test_a_part_of_a_step_is_told_only_when_it_is_long() -> None:
    said: list[str] = []
    clock = Clock()
    teller = Teller(said.append, clock=clock)
    with teller.activity("step 3, rollout", told=False):
        teller.look()
        assert said == []
        clock.now = 31.0
        teller.look()
    assert said == ["still step 3, rollout: 0:31 so far"]


def test_what_others_say_breaks_the_silence() -> None:
    said: list[str] = []
    clock = Clock()
    teller = Teller(said.append, clock=clock)
    with teller.activity("evaluating", told=False):
        clock.now = 25.0
        teller.heard()
        clock.now = 40.0
        teller.look()
        assert said == []


def test_within_an_activity_another_one_takes_its_place_until_it_ends() -> None:
    teller = Teller(lambda _: None, clock=Clock())
    teller.doing("step 1")
    with teller.activity("comparing"):
        with teller.activity("loading"):
            assert teller.now() == ("loading", 0.0, "")
        assert teller.now() == ("comparing", 0.0, "")
    assert teller.now() == ("step 1", 0.0, "")
    teller.doing(None)
    assert teller.now() is None


def test_an_activity_that_fails_does_not_go_on() -> None:
    teller = Teller(lambda _: None)
    with pytest.raises(OSError, match="disk"), teller.activity("reading"), teller.waiting(lambda: "a file"):
        raise OSError("disk full")
    assert teller.now() is None


def test_without_a_teller_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with activity("reading"), waiting(lambda: "a file"):
        doing("something")
    assert current() is None
    assert capfd.readouterr() == ("", "")


def test_the_outer_teller_speaks_again_when_an_inner_one_has_ended() -> None:
    with Teller(lambda _: None) as outer:
        with Teller(lambda _: None) as inner:
            assert current() is inner
        assert current() is outer
    assert current() is None


def test_a_command_tells_on_standard_error_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    with telling(), activity("scoring 3 pairs of \x1b[2J"):
        pass
    assert capfd.readouterr() == ("", "scoring 3 pairs of \\x1b[2J\n")


def test_a_listener_that_is_gone_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with telling("stdout"), activity("reading"):
        pass


def test_the_long_silence_is_broken_by_the_tellers_own_thread() -> None:
    said: list[str] = []
    with Teller(said.append, every_s=0.0) as teller, teller.activity("working", told=False):
        wait_until(lambda: said, what="a line", deadline_s=60.0)
    assert said[0].startswith("still working: 0:0")


def test_what_a_signal_leads_to_is_said_while_the_program_goes_on() -> None:
    said: list[str] = []
    with Teller(said.append) as teller, StopRequest(teller.say_soon) as stop:
        stop.patient = True
        signal.raise_signal(signal.SIGINT)
        wait_until(lambda: said, what="a line", deadline_s=60.0)
        assert said[0].startswith("SIGINT: ending after the step")
