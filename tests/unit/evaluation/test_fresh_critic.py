"""A critic trained anew tells a clumsy student from the teacher, and cannot tell the teacher from itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gad_ray.batch import Example, Ragged, RolloutBatch, StopReason
from gad_ray.evaluation.fresh_critic import FreshVerdict, fresh_verdict
from tests.unit.builders import critic_config, sampling, user

NUM_TRAIN, NUM_TEST = 24, 12


def examples(first: int, count: int) -> list[Example]:
    return [
        Example(id=f"p{i}", messages=user(f"Say {i}."), teacher_response=f"The number is {i}.")
        for i in range(first, first + count)
    ]


def answered(rows: list[Example], *texts: str) -> tuple[list[Example], RolloutBatch]:
    """Every prompt with the same answers; ``{}`` stands for the teacher's."""
    answers = [(row, text.format(row.teacher_response)) for row in rows for text in texts]
    tokens = Ragged.from_rows([[5, 6]] * len(answers), np.int32)
    return rows, RolloutBatch(
        step=0,
        example_ids=tuple(row.id for row, _ in answers),
        texts=tuple(text for _, text in answers),
        prompt_tokens=tokens,
        response_tokens=tokens,
        logprobs=Ragged.from_rows([[-1.0, -1.0]] * len(answers), np.float32),
        stop_reasons=(StopReason.STOP,) * len(answers),
        policy_versions=np.zeros(len(answers), dtype=np.int64),
        sampling=sampling(),
        teacher_lengths=np.full(len(answers), 5, dtype=np.int32),
    )


def verdict_on(model: Path, *texts: str) -> FreshVerdict:
    return fresh_verdict(
        critic_config(model, optimizer={"lr": 3e-3}, head_lr=1e-2),
        train=answered(examples(0, NUM_TRAIN), *texts),
        test=answered(examples(100, NUM_TEST), *texts),
        prompts_per_step=6,
        epochs=3.0,
        seed=0,
    )


def test_a_student_that_writes_otherwise_is_told_apart_on_prompts_never_trained_on(tied_model: Path):
    verdict = verdict_on(tied_model, "zzz", "no no")
    assert verdict.num_steps == 12
    assert verdict.num_prompts == NUM_TEST
    assert verdict.auc.value > 0.95
    assert verdict.d_acc.value > 0.95
    assert verdict.train_d_acc > 0.95


def test_the_teachers_own_text_is_a_coins_toss(tied_model: Path):
    verdict = verdict_on(tied_model, "{}")
    assert verdict.auc.value == pytest.approx(0.5)
    assert verdict.d_acc.value == verdict.d_acc.low == verdict.d_acc.high == 0.5
    assert verdict.auc.low <= 0.5 <= verdict.auc.high


def test_a_prompt_without_answers_is_left_out(tied_model: Path):
    train, test = answered(examples(0, NUM_TRAIN), "zzz"), answered(examples(100, NUM_TEST), "zzz")
    fewer = (test[0], test[1].take(range(1, NUM_TEST)))
    verdict = fresh_verdict(
        critic_config(tied_model),
        train=(train[0], train[1].take(range(NUM_TRAIN - 1))),
        test=fewer,
        prompts_per_step=6,
        epochs=1.0,
        seed=0,
    )
    assert verdict.num_prompts == NUM_TEST - 1
