import signal

import pytest

from gad_ray.interrupt import Interrupted, StopRequest

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def noted(stop: StopRequest) -> int | None:
    return stop.signal_number


def test_nothing_is_raised_while_no_signal_has_come():
    with StopRequest() as stop:
        stop.check()
        assert noted(stop) is None


@BOTH
def test_a_first_signal_stops_every_wait(number: signal.Signals):
    with StopRequest() as stop:
        signal.raise_signal(number)
        assert noted(stop) == number
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.signal_number == number
    assert caught.value.exit_code == 128 + number


@BOTH
def test_a_first_signal_lets_the_step_under_way_end(number: signal.Signals):
    with StopRequest() as stop:
        stop.patient = True
        signal.raise_signal(number)
        stop.check()
        assert noted(stop) == number
        # The step has ended.
        stop.patient = False
        with pytest.raises(Interrupted):
            stop.check()


def test_a_second_signal_stops_at_once_and_the_first_is_the_one_reported():
    with StopRequest() as stop:
        stop.patient = True
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.signal_number == signal.SIGTERM


@BOTH
def test_a_first_signal_in_a_step_says_at_once_what_happens_and_how_to_leave_now(number: signal.Signals):
    said: list[str] = []
    with StopRequest(said.append) as stop:
        stop.patient = True
        signal.raise_signal(number)
        (line,) = said
        assert line.startswith(f"{number.name}: ending after the step that is under way, which is saved")
        assert "To leave now" in line
        signal.raise_signal(number)
        signal.raise_signal(number)
    # However often it comes.
    assert said[1:] == [f"{number.name}: leaving now"]


def test_outside_of_steps_a_first_signal_says_that_the_run_ends():
    said: list[str] = []
    with StopRequest(said.append, ending="ending; requests under way are answered first"):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert said == ["SIGTERM: ending; requests under way are answered first"]


@BOTH
def test_where_nothing_has_been_started_a_first_signal_ends_whatever_is_done(number: signal.Signals):
    with StopRequest() as stop:
        stop.abrupt = True
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(number)
    assert caught.value.signal_number == number


def test_what_handles_failures_does_not_swallow_an_interruption():
    assert not issubclass(Interrupted, Exception)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_the_previous_handlers_are_put_back_when_the_run_ends():
    before = handlers()
    with StopRequest():
        assert all(now != then for now, then in zip(handlers(), before, strict=True))
    assert handlers() == before


@pytest.mark.parametrize("error", [OSError("disk full"), Interrupted(signal.SIGINT)])
def test_the_previous_handlers_are_put_back_when_the_run_fails(error: BaseException):
    before = handlers()
    with pytest.raises(type(error)), StopRequest():
        raise error
    assert handlers() == before
