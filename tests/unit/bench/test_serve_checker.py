"""Wrong answers, which must never be taken for right ones."""

from __future__ import annotations

import math

import pytest

from benchmarks.serve.checker import Checker

OFFLINE = {"first": [0.0, 1.0, 2.0], "second": [10.0, 11.5, 12.0]}


@pytest.mark.parametrize(
    ("fingerprint", "scores"),
    [
        ("first", [1.0, 2.001]),
        ("first", [2.0, 1.0]),
        ("first", [11.5, 12.0]),
        ("second", [11.5, 2.0]),
        ("first", [1.0, math.nan]),
        ("first", [1.0]),
        ("first", [1.0, 2.0, 2.0]),
        ("first", []),
    ],
    ids=["off", "swapped", "another's", "mixed", "nan", "one short", "one too many", "none"],
)
def test_a_falsified_answer_is_counted_as_wrong(fingerprint: str, scores: list[float]) -> None:
    checker = Checker(OFFLINE)
    assert not checker.check([1, 2], fingerprint, scores)
    assert (checker.wrong, checker.unknown, checker.largest_gap) == (1, 0, 0.0)


def test_a_version_that_was_never_served_is_counted_apart() -> None:
    checker = Checker(OFFLINE)
    assert not checker.check([0], "third", [0.0])
    assert (checker.wrong, checker.unknown) == (0, 1)


def test_right_answers_are_counted_by_version_with_their_largest_gap() -> None:
    checker = Checker(OFFLINE)
    assert checker.check([2, 0], "first", [2.00005, 0.0])
    assert checker.check([1], "second", [11.5])
    figures = checker.figures()
    assert figures["answers_by_version"] == {"first": 1, "second": 1}
    assert figures["wrong"] == figures["unknown_version"] == 0
    assert figures["largest_gap"] == pytest.approx(5e-5, rel=1e-6)


def test_versions_are_as_far_apart_as_their_closest_scores_of_one_pair() -> None:
    assert Checker({**OFFLINE, "third": [0.5, 11.25, 30.0]}).separation() == 0.25
