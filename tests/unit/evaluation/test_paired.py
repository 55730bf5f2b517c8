"""The verdict on pairs, against hand-worked figures, the plain definition, and intervals known from theory."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gad_ray.evaluation.intervals import areas, auc, bootstrap
from gad_ray.evaluation.paired import paired_verdict


def scores(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_the_figures_are_those_worked_out_by_hand():
    found = paired_verdict(scores(1, 2, 0, 5), scores(0, 2, 1, 3))
    assert found.d_acc.value == 0.625  # win, tie, loss, win
    assert found.score_diff.value == 0.5  # (1 + 0 − 1 + 2)/4
    # Over (0, 2, 1, 3): 1 wins 1½, 2 wins 2½, 0 wins ½, 5 wins 4.
    assert found.auc.value == 8.5 / 16


def test_the_area_is_that_of_the_plain_definition_on_ties_and_all():
    rng = np.random.default_rng(3)
    teacher, student = (rng.integers(-4, 5, 60).astype(np.float32) for _ in range(2))
    assert paired_verdict(teacher, student).auc.value == pytest.approx(auc(teacher, student))


def test_the_intervals_are_those_of_a_bootstrap_over_prompts():
    rng = np.random.default_rng(4)
    teacher, student = (rng.normal(m, 1.0, 150).astype(np.float32) for m in (0.4, 0.0))
    found = paired_verdict(teacher, student, seed=1)
    area = bootstrap(lambda index: areas(teacher[index], student[index]), size=150, seed=2)
    assert_allclose([found.auc.low, found.auc.high], [area.low, area.high], atol=0.01)
    half = 1.96 * (teacher - student).std() / np.sqrt(150)
    assert_allclose(
        [found.score_diff.low, found.score_diff.high],
        [found.score_diff.value - half, found.score_diff.value + half],
        atol=0.03,
    )
    assert found.d_acc.low < found.d_acc.value < found.d_acc.high
    assert paired_verdict(teacher, student, seed=1) == found


def test_a_large_set_is_judged_in_parts_that_fit_in_memory(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(5)
    teacher, student = (rng.normal(m, 1.0, 40).astype(np.float32) for m in (0.4, 0.0))
    whole = paired_verdict(teacher, student)
    monkeypatch.setattr("gad_ray.evaluation.intervals._CHUNK", 1000)
    assert paired_verdict(teacher, student) == whole


def test_a_single_prompt_says_nothing_of_the_spread():
    found = paired_verdict(scores(2), scores(1))
    assert (found.score_diff.value, found.score_diff.low, found.score_diff.high) == (1.0, 1.0, 1.0)


def test_metrics_carry_both_ends_under_their_own_names():
    metrics = paired_verdict(scores(3, 2), scores(1, 0)).metrics("eval/")
    assert metrics["eval/d_acc"] == metrics["eval/d_acc_low"] == metrics["eval/d_acc_high"] == 1.0
    assert metrics["eval/score_diff"] == 2.0
    assert set(metrics) == {
        f"eval/{name}{end}" for name in ("d_acc", "score_diff", "auc") for end in ("", "_low", "_high")
    }
