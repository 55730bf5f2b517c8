import signal

import pytest

from gad_ray.controller.interrupt import Interrupted, StopRequest

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
