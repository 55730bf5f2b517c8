"""The values of single tokens are those that the recorded scores were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gad_ray.batch import RolloutBatch, ScoreBatch
from gad_ray.core.discriminator import BradleyTerryLoss
from gad_ray.models.chat import ChatFormat
from tests.unit.builders import TEACHER, critic_config, critic_learner, prompt_batch, rollout_batch

TEXTS = (("The sky is blue.",), ("one", "天空为什么是蓝色的？"), ("340", "340", "51", "391"), ("",))
PROMPTS = prompt_batch()


@pytest.fixture(scope="module")
def rollouts(chat: ChatFormat) -> RolloutBatch:
    return rollout_batch(chat, PROMPTS, texts=TEXTS)


def judged(directory: Path, rollouts: RolloutBatch, *, count: int, **changed: Any) -> ScoreBatch:
    learner = critic_learner(critic_config(directory, **changed))
    with torch.no_grad():
        learner.model.head.weight.mul_(30.0)
    scores, _ = learner.score_and_update(PROMPTS, rollouts, num_watched=count)
    return scores


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"packing": True},
        {"micro_batch_tokens": 150},
        {"updates_per_step": 3},
        {"loss": BradleyTerryLoss(batch_norm=True), "micro_batch_tokens": 150},
    ],
    ids=["padded", "packed", "in small batches", "several updates", "in two passes"],
)
def test_the_mean_of_the_values_is_the_score(
    tied_model: Path, rollouts: RolloutBatch, changed: dict[str, Any]
) -> None:
    scores = judged(tied_model, rollouts, count=7, **changed)
    assert [one.position for one in scores.token_values] == [0, 1, 2, 3, 4, 5, 7]
    for one in scores.token_values:
        assert one.teacher.mean() == pytest.approx(scores.teacher[one.position], abs=1e-5)
        if rollouts.texts[one.position]:
            assert one.student.mean() == pytest.approx(scores.student[one.position], abs=1e-5)
            assert one.student_ends[-1] == len(rollouts.texts[one.position])
        else:
            # Scored on the prompt's last token: of its own it has none.
            assert len(one.student) == 0


def test_one_response_of_every_prompt_is_kept_before_a_second_of_any(
    tied_model: Path, rollouts: RolloutBatch
) -> None:
    positions = {
        n: [one.position for one in judged(tied_model, rollouts, count=n).token_values] for n in (2, 5, 99)
    }
    assert positions == {2: [0, 1], 5: [0, 1, 2, 3, 7], 99: list(range(8))}


def test_keeping_values_changes_no_score(tied_model: Path, rollouts: RolloutBatch) -> None:
    without, with_values = (judged(tied_model, rollouts, count=count) for count in (0, 4))
    assert without.token_values == ()
    np.testing.assert_array_equal(without.student, with_values.student)
    assert with_values.token_values[0].teacher_ends[-1] == len(TEACHER[0])
