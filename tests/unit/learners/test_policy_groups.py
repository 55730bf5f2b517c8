"""Groups that the policy does not train on: alone, without spread, or more than a batch takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gad_ray.batch import PromptBatch, RolloutBatch, ScoreBatch
from gad_ray.config.reward import RewardConfig
from gad_ray.core.advantages import GrpoAdvantage, RefillConfig
from gad_ray.observability.metrics import check_metrics
from gad_ray.rewards.stage import prompt_figures, rewards_of
from tests.unit.builders import (
    GamePolicy,
    assert_gradients_close,
    gradients_of,
    score_batch,
    weights_of,
)
from tests.unit.learners.variants import NINE_SCORES, game_policy


def gradient(learner: GamePolicy, *batch: Any) -> dict[str, Tensor]:
    return gradients_of(learner, partial(learner.play, *batch))


def learner_of(directory: Path, **changed: Any) -> GamePolicy:
    return game_policy(directory, mini_batch_prompts=3, **changed)


def test_a_response_that_is_alone_in_its_group_is_counted_and_not_trained_on(
    tied_model: Path, rollouts: RolloutBatch, prompts: PromptBatch
):
    # What generation failures leave of the second prompt's responses: one.
    few, rest = [0, 1, 2, 4, 6, 7, 8], [0, 1, 2, 6, 7, 8]
    found = gradient(
        learner_of(tied_model), rollouts.take(few), score_batch([NINE_SCORES[i] for i in few]), prompts
    )
    wanted = gradient(
        learner_of(tied_model), rollouts.take(rest), score_batch([NINE_SCORES[i] for i in rest])
    )
    assert_gradients_close(found, wanted)
    learner = learner_of(tied_model)
    metrics = learner.play(rollouts.take(few), score_batch([NINE_SCORES[i] for i in few]), prompts).metrics
    check_metrics("adversarial", dict(metrics))
    assert metrics["actor/lone_samples"] == 1.0


@pytest.mark.parametrize("zero_spread", ["keep", "drop"])
def test_a_batch_of_lone_responses_moves_nothing(tied_model: Path, rollouts: RolloutBatch, zero_spread: Any):
    learner = learner_of(tied_model, advantage=GrpoAdvantage(zero_spread=zero_spread))
    before = weights_of(learner)
    stats = learner.play(rollouts.take([0, 3, 6]), score_batch([1.0, 2.0, 3.0]))
    assert stats.num_steps == 0
    assert stats.metrics["actor/lone_samples"] == 3.0
    assert all(torch.equal(before[name], after) for name, after in weights_of(learner).items())


def test_a_batch_takes_the_first_groups_with_spread_and_leaves_the_surplus(
    tied_model: Path, rollouts: RolloutBatch, prompts: PromptBatch
):
    """Three groups with spread for two places; the responses lie in another order than the prompts were drawn in."""
    refill = GrpoAdvantage(zero_spread="drop", refill=RefillConfig())
    drawn = PromptBatch(step=1, examples=tuple(prompts.examples[i] for i in (2, 0, 1)))
    learner = learner_of(tied_model, advantage=refill, max_prompts=2)
    found = gradient(learner, rollouts, score_batch(NINE_SCORES), drawn)
    rest = [0, 1, 2, 6, 7, 8]
    wanted = gradient(
        learner_of(tied_model), rollouts.take(rest), score_batch([NINE_SCORES[i] for i in rest])
    )
    assert_gradients_close(found, wanted)
    metrics = (
        learner_of(tied_model, advantage=refill, max_prompts=2)
        .play(rollouts, score_batch(NINE_SCORES), drawn)
        .metrics
    )
    check_metrics("adversarial", dict(metrics))
    assert metrics["actor/surplus_samples"] == 3.0
    assert metrics["actor/dropped_samples"] == 0.0


def test_a_group_without_spread_takes_no_place(
    tied_model: Path, rollouts: RolloutBatch, prompts: PromptBatch
):
    refill = GrpoAdvantage(zero_spread="drop", refill=RefillConfig())
    scores = [0.5, 0.5, 0.5, *NINE_SCORES[3:]]
    learner = learner_of(tied_model, advantage=refill, max_prompts=2)
    metrics = learner.play(rollouts, score_batch(scores), prompts).metrics
    assert metrics["actor/dropped_samples"] == 3.0
    assert metrics["actor/surplus_samples"] == 0.0


def test_figures_of_prompts_are_gap_and_spread_of_their_groups(rollouts: RolloutBatch):
    scores = ScoreBatch(
        student=np.asarray([0.5, 0.5, 0.5, 1.0, 2.0, 3.0, 0.0, 0.0, 1e-7], dtype=np.float32),
        teacher=np.asarray([2.0] * 3 + [-1.0] * 3 + [0.0] * 3, dtype=np.float32),
        critic_version=0,
    )
    figures = prompt_figures(rollouts, scores, rewards_of(rollouts, scores, RewardConfig()))
    assert figures.example_ids == ("e0", "e1", "e2")
    assert figures.gap.tolist() == pytest.approx([1.5, -3.0, 0.0], abs=1e-6)
    assert figures.has_spread.tolist() == [False, True, False]
    assert figures.num_with_spread == 1
