from __future__ import annotations

import math

import pytest

from gad_ray.health.signals import SOURCES, Signal, read_signals


def test_every_signal_has_a_source() -> None:
    assert set(SOURCES) == set(Signal)


def test_saturation_is_derived_where_it_is_not_logged() -> None:
    derived = read_signals({"critic/score_diff": 9.81, "critic/temperature": 2.0})
    assert derived[Signal.SIGMOID_MEAN] == pytest.approx(0.99264, abs=1e-5)
    logged = {"critic/score_diff": 9.81, "critic/temperature": 2.0, "critic/sigmoid_mean": 0.875}
    assert read_signals(logged)[Signal.SIGMOID_MEAN] == 0.875
    assert Signal.SIGMOID_MEAN not in read_signals({"critic/score_diff": 9.81})


@pytest.mark.parametrize(("difference", "expected"), [(1e6, 1.0), (-1e6, 0.0), (0.0, 0.5)])
def test_the_derived_sigmoid_does_not_overflow(difference: float, expected: float) -> None:
    signals = read_signals({"critic/score_diff": difference, "critic/temperature": 0.5})
    assert signals[Signal.SIGMOID_MEAN] == expected


def test_the_largest_score_counts_on_either_side_of_zero() -> None:
    metrics = {
        "critic/teacher_score_min": -8.44,
        "critic/teacher_score_max": 9.0,
        "critic/student_score_min": -14.0,
        "critic/student_score_max": 8.25,
    }
    assert read_signals(metrics)[Signal.SCORE_SIZE_MAX] == 14.0


def test_the_gradient_counts_as_it_was_before_clipping() -> None:
    metrics = {"critic/grad_norm": 1.0, "critic/grad_norm_before_clip": 40.0}
    assert read_signals(metrics)[Signal.CRITIC_GRAD_NORM] == 40.0
    assert read_signals({"critic/grad_norm": 0.5})[Signal.CRITIC_GRAD_NORM] == 0.5


def test_a_value_that_is_not_finite_tells_nothing() -> None:
    assert read_signals({"critic/d_acc": math.nan, "critic/score_diff": math.inf}) == {
        Signal.NUM_NONFINITE: 2.0
    }
