"""Discriminators against data whose answer is known by construction."""

from __future__ import annotations

import numpy as np

from gad_ray.quality.discriminators import MIN_PROMPTS, Discriminator, discriminate
from gad_ray.quality.features import (
    LENGTH_FEATURES,
    SURFACE_FEATURES,
    length_features,
    surface_features,
)


def by_length(teacher: np.ndarray, student: np.ndarray, prompts: np.ndarray | None = None) -> Discriminator:
    found = discriminate(
        "length-only",
        LENGTH_FEATURES,
        np.stack([length_features(n) for n in teacher]).astype(np.float64),
        np.stack([length_features(n) for n in student]).astype(np.float64),
        np.arange(len(teacher)) if prompts is None else prompts,
        seed=0,
    )
    assert found is not None
    return found


def test_a_student_longer_than_its_teacher_is_told_in_every_pair():
    teacher = np.random.default_rng(0).integers(10, 1000, 200)
    found = by_length(teacher, teacher + 5)
    assert found.d_acc.value >= 0.99
    # Within a prompt it is certain, across prompts it is not: 5 is little against the spread.
    assert found.auc.value < 0.6


def test_equal_distributions_cannot_be_told_apart():
    draw = np.random.default_rng(1)
    found = by_length(draw.integers(10, 1000, 500), draw.integers(10, 1000, 500))
    assert found.d_acc.low <= 0.5 <= found.d_acc.high
    assert found.auc.low <= 0.5 <= found.auc.high
    assert found.d_acc.high - found.d_acc.low < 0.1


def test_a_length_in_the_middle_is_told_from_both_extremes():
    draw = np.random.default_rng(2)
    student = np.where(draw.random(300) < 0.5, 10, 1000)
    found = by_length(draw.integers(90, 110, 300), student)
    assert found.d_acc.value >= 0.99


def test_equal_features_are_a_tie_that_counts_half():
    lengths = np.full(40, 100)
    found = by_length(lengths, lengths)
    assert (found.d_acc.value, found.auc.value) == (0.5, 0.5)
    assert found.weights == ()


def test_a_prompt_counts_once_however_many_answers_it_has():
    # 30 prompts that the teacher wins, and one with 60 answers that it loses.
    teacher, student = np.full(90, 50), np.full(90, 500)
    prompts = np.concatenate([np.arange(30), np.full(60, 30)])
    student[30:] = 5
    found = by_length(teacher, student, prompts)
    assert (found.num_prompts, found.num_pairs) == (31, 90)
    wins = round(found.d_acc.value * 31)
    assert abs(found.d_acc.value * 31 - wins) < 1e-9


def test_too_few_prompts_say_nothing():
    features = np.ones((MIN_PROMPTS - 1, 2))
    assert discriminate("x", LENGTH_FEATURES, features, features, np.arange(MIN_PROMPTS - 1), seed=0) is None


def test_the_strongest_feature_is_named_with_its_sign_and_means():
    draw = np.random.default_rng(3)
    teacher, student = draw.normal(0, 1, (200, 3)), draw.normal(0, 1, (200, 3))
    teacher[:, 1] -= 3.0
    found = discriminate("x", ("a", "b", "c"), teacher, student, np.arange(200), seed=0)
    assert found is not None
    strongest = found.weights[0]
    assert strongest.feature == "b"
    assert strongest.weight < 0
    assert strongest.teacher < -2.5 < strongest.student


def test_features_are_finite_and_as_many_as_their_names_for_any_text():
    for text in ("", " ", "a", "。", "```\n", "\ud800", "x" * 10_000, "| a |\n|---|\n| b |"):
        values = surface_features(text)
        assert values.shape == (len(SURFACE_FEATURES),)
        assert np.isfinite(values).all()


def test_surface_features_do_not_see_the_length_of_a_text_of_one_kind():
    once = "Mark my words, they are few. And they are plain.\n"
    short, long = surface_features(once * 2), surface_features(once * 40)
    differing = {SURFACE_FEATURES[i] for i in np.flatnonzero(np.abs(short - long) > 0.02)}
    assert differing <= {"repeated 4-grams"}
