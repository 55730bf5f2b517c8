"""The toy: its figures against hand-made ones, and its outcome over seeds."""

from __future__ import annotations

import math

import pytest
import torch

from examples.toy.game import (
    MODES,
    GaussianStudent,
    ToyResult,
    figures_of,
    kl_divergence,
    play_toy,
    teacher_probabilities,
)

SEEDS = (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def results() -> list[ToyResult]:
    return [play_toy(seed=seed) for seed in SEEDS]


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_divergence_is_that_computed_by_hand() -> None:
    p, q = vector(0.5, 0.5, 0.0), vector(0.25, 0.5, 0.25)
    assert kl_divergence(p, q) == pytest.approx(0.5 * math.log(2.0), abs=1e-12)
    assert kl_divergence(p, p) == 0.0
    assert kl_divergence(q, p) == math.inf


def test_the_teacher_has_two_modes_and_its_weights() -> None:
    teacher = teacher_probabilities()
    assert float(teacher.sum()) == pytest.approx(1.0, abs=1e-12)
    peaks = [k for k in range(1, 9) if teacher[k] > teacher[k - 1] and teacher[k] > teacher[k + 1]]
    assert peaks == list(MODES)
    assert float(teacher[:4].sum()) == pytest.approx(0.7, abs=0.01)


def test_a_student_is_a_gaussian_normalised_over_the_classes() -> None:
    with torch.no_grad():
        probabilities = GaussianStudent(0.0, 1.0)().exp()
    total = sum(math.exp(-k * k / 2) for k in range(10))
    assert probabilities.tolist() == pytest.approx([math.exp(-k * k / 2) / total for k in range(10)])


def test_figures_of_a_student_on_one_mode() -> None:
    figures = figures_of(vector(0, 0.25, 0.5, 0.25, 0, 0, 0, 0, 0, 0))
    assert figures.mean == 2.0
    assert figures.std == pytest.approx(math.sqrt(0.5))
    assert figures.mode_mass == (1.0, 0.0)
    assert figures.modes_covered == 1
    assert figures.forward_kl == math.inf
    assert math.isfinite(figures.reverse_kl)


def test_likelihood_covers_both_modes_with_its_mean_between_them(results: list[ToyResult]) -> None:
    for result in results:
        assert MODES[0] + 0.5 < result.seqkd.mean < MODES[1] - 0.5
        assert result.seqkd.modes_covered == 2
        assert max(result.seqkd.mode_mass) < 0.6


def test_the_game_puts_nearly_all_mass_on_one_mode(results: list[ToyResult]) -> None:
    for result in results:
        assert max(result.game.mode_mass) > 0.95
        assert min(result.game.mode_mass) < 0.01
        assert result.game.modes_covered == 1


def test_each_student_is_the_better_one_by_the_divergence_that_it_minimises(results: list[ToyResult]) -> None:
    for result in results:
        assert result.seqkd.forward_kl < 0.6 < 1.0 < result.game.forward_kl
        assert result.game.reverse_kl < 0.45 < 0.9 < result.seqkd.reverse_kl


def test_a_seed_gives_the_same_figures_again(results: list[ToyResult]) -> None:
    assert play_toy(seed=SEEDS[0]) == results[0]
    assert results[0].game_course != results[1].game_course
