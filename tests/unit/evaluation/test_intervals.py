"""Intervals and the area under the curve, against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gad_ray.evaluation.intervals import areas, auc, bootstrap_mean, over_repeats


def scores(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_the_area_is_the_share_of_pairs_that_the_teacher_wins_with_half_of_the_ties():
    # 2 > 1, 2 = 2, 2 < 3; 4 above all three: 1 + 0.5 + 0 + 3 of 6.
    assert auc(scores(2, 4), scores(1, 2, 3)) == pytest.approx(4.5 / 6)


def test_the_area_is_one_half_for_equal_scores_and_its_complement_when_sides_change_places():
    assert auc(scores(1, 1, 1), scores(1, 1)) == 0.5
    teacher, student = scores(0.3, 2.0, -1.0), scores(0.1, 0.2, 5.0, -3.0)
    assert auc(teacher, student) + auc(student, teacher) == pytest.approx(1.0)


def test_the_areas_of_many_draws_are_those_of_each():
    rng = np.random.default_rng(7)
    teacher, student = (rng.integers(0, 4, (5, 3, n)).astype(np.float32) for n in (6, 9))
    found = areas(teacher, student)
    t, s = teacher[..., :, None], student[..., None, :]
    assert_allclose(found, ((t > s) + 0.5 * (t == s)).mean(axis=(-2, -1)))


def test_three_repeats_give_students_interval():
    interval = over_repeats([1.0, 2.0, 3.0])
    # Standard deviation 1, √3 repeats, t(0.975, 2 degrees of freedom) = 4.3027.
    assert_allclose([interval.value, interval.low, interval.high], [2.0, 2 - 2.4841, 2 + 2.4841], atol=1e-4)


def test_a_single_repeat_says_nothing_of_the_spread():
    interval = over_repeats([0.7])
    assert (interval.value, interval.low, interval.high) == (0.7, -math.inf, math.inf)


def test_the_bootstrap_of_a_mean_is_as_wide_as_theory_says_and_repeats_itself():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    interval = bootstrap_mean(values, seed=1)
    half = 1.96 * values.std() / 20
    assert interval.value == values.mean()
    assert_allclose([interval.low, interval.high], [values.mean() - half, values.mean() + half], atol=0.015)
    assert bootstrap_mean(values, seed=1) == interval
