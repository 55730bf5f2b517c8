"""Every variant on the same batch in another order and in small micro-batches: nothing may change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gad_ray.observability.metrics import METRICS
from tests.unit.builders import assert_close, assert_gradients_close
from tests.unit.learners.variants import (
    CRITICS,
    POLICIES,
    SMALL,
    TEXTS,
    WHOLE,
    Played,
    play_critic,
    play_policy,
)

# Another order of prompts, and another order of every prompt's responses.
ORDER = [10, 11, 9, 4, 3, 7, 5, 8, 6, 1, 2, 0]


def assert_same(found: Played, wanted: Played) -> None:
    assert len(found.gradients) == len(wanted.gradients) > 0
    for gradient, other in zip(found.gradients, wanted.gradients, strict=True):
        assert_gradients_close(gradient, other)
    assert_close(found.weights, wanted.weights, relative=1e-5, absolute=1e-6)
    assert set(found.figures) <= set(METRICS)
    assert found.figures == pytest.approx(wanted.figures, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("variant", CRITICS)
def test_neither_order_nor_micro_batches_change_anything_for_the_critic(tied_model: Path, variant: str):
    wanted = play_critic(tied_model, variant=CRITICS[variant], budget=WHOLE)
    found = play_critic(tied_model, variant=CRITICS[variant], budget=SMALL, order=ORDER)
    assert_same(found, wanted)
    students, teachers = np.split(np.asarray(wanted.scores), 2)
    assert found.scores == pytest.approx([*students[ORDER], *teachers[ORDER]], abs=1e-5)


@pytest.mark.parametrize("variant", POLICIES)
def test_neither_order_nor_micro_batches_change_anything_for_the_policy(tied_model: Path, variant: str):
    # All prompts in one mini-batch: which come into the first of several is a matter of their order.
    settings = {"variant": POLICIES[variant], "mini_batch_prompts": len(TEXTS)}
    wanted = play_policy(tied_model, budget=WHOLE, **settings)
    found = play_policy(tied_model, budget=SMALL, order=ORDER, **settings)
    assert_same(found, wanted)
