"""A step of the game beside a peer's: what is asked for, and what may be compared."""

from __future__ import annotations

import pytest

from gad_ray.bench.shape import Shape
from gad_ray.bench.step.study import Timed, compared, table
from gad_ray.errors import ConfigError, GadError

GAME = Timed(seconds=(9.0, 3.0, 4.0), split={"rollout": 1.0, "sync": 0.5}, tokens=70)
TRL = Timed(seconds=(8.0, 16.0), split={"rollout": 2.0, "update": 10.0}, tokens=70)


@pytest.mark.parametrize("text", ["4x4", "4x1x48", "0x4x48", "4x4x48x1", "four"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--shape"):
        Shape.parse(text)


def test_a_shape_is_told_as_it_was_given() -> None:
    assert str(Shape.parse("4x8x128")) == "4x8x128"


def test_a_round_is_the_ratio_of_median_steps_on_the_same_tokens() -> None:
    found = compared(GAME, TRL)
    assert found["ratio"] == 4.0 / 12.0
    head, *rows = table({"rounds": [found]})
    assert rows[0] == ["1", "4.00", "12.00", "0.33"]
    assert [row[:2] for row in rows[1:]] == [
        ["game", "rollout 1.00, sync 0.50"],
        ["trl", "rollout 2.00, update 10.00"],
    ]
    assert all(len(row) == len(head) for row in rows)


def test_sides_that_did_not_compute_the_same_tokens_are_not_compared() -> None:
    with pytest.raises(GadError, match="70 tokens and TRL 71"):
        compared(GAME, Timed(seconds=(1.0,), split={}, tokens=71))
