"""Can a critic that has never seen this student tell its answers from the teacher's?

The game's own critic is part of the game, so its verdict on a student trained by it is no measure. A critic trained
anew, on one part of the prompts, and asked about the rest, is one that any two students can be held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch import Example, Float32, PromptBatch, RolloutBatch
from gad_ray.config.critic import CriticConfig
from gad_ray.core.discriminator import CrossEntropyLoss
from gad_ray.core.preference import preference
from gad_ray.data.cursor import PromptCursor
from gad_ray.evaluation.intervals import Interval, auc, bootstrap
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.pairs import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshVerdict:
    """What a freshly trained critic makes of a student.

    Attributes:
        auc: Area under the ROC curve on prompts that it did not train on, with a bootstrap interval over prompts;
            0.5 where teacher and student cannot be told apart.
        d_acc: Share of the same prompts' pairs in which the teacher scores higher.
        train_d_acc: Of its last quarter of training, before each update: shows whether it learned at all.
        num_prompts: Prompts of the verdict.
        num_steps: Optimiser steps that it trained.
    """

    auc: Interval
    d_acc: Interval
    train_d_acc: float
    num_prompts: int
    num_steps: int


def fresh_verdict(
    critic: CriticConfig,
    *,
    train: tuple[Sequence[Example], RolloutBatch],
    test: tuple[Sequence[Example], RolloutBatch],
    prompts_per_step: int,
    epochs: float,
    seed: int,
) -> FreshVerdict:
    """Train a critic by cross-entropy, whose scores are absolute, and judge by it.

    Args:
        critic: Model and optimiser to train; its loss is replaced, and there is no replay.
        train: Prompts to train on with the student's responses to them.
        test: Other prompts with the student's responses to them.
        prompts_per_step: Prompts in each update.
        epochs: Passes over the training prompts.
        seed: Of the head, the order of the prompts, and the bootstrap.

    Raises:
        TrainingError: If training cannot go on.
    """
    temperature = critic.loss.temperature
    config = critic.model_copy(update={"loss": CrossEntropyLoss(temperature=temperature), "replay": None})
    examples, rollouts = train
    num_steps = round(epochs * len(examples) / prompts_per_step)
    learner = CriticLearner(
        config, seed=seed, total_steps=num_steps, collective=LocalCollective(), max_nonfinite_steps=3
    )
    order = PromptCursor([e.id for e in examples], seed=seed, batch_size=prompts_per_step)
    course: list[float] = []
    for step in range(num_steps):
        drawn = [examples[i] for i in order.next_batch()]
        part = _answers_to(rollouts, drawn)
        _, stats = learner.score_and_update(PromptBatch(step=step, examples=tuple(drawn)), part)
        course.append(stats.metrics["critic/d_acc"])
    teacher, student = _scores(learner, *test)
    return _verdict(teacher, student, course, seed=seed)


def _answers_to(rollouts: RolloutBatch, examples: Sequence[Example]) -> RolloutBatch:
    """The responses to some of the prompts."""
    spans = {rollouts.example_ids[start]: range(start, stop) for start, stop in rollouts.groups()}
    return rollouts.take([i for example in examples for i in spans.get(example.id, ())])


def _scores(
    learner: CriticLearner, examples: Sequence[Example], rollouts: RolloutBatch
) -> tuple[Float32, list[Float32]]:
    """The teacher's score for every prompt that was answered, and the scores of the answers to it."""
    owners = {example.id: example for example in examples}
    groups = rollouts.groups()
    answered = [owners[rollouts.example_ids[start]] for start, _ in groups]
    pairs = [Pair(e.messages, e.teacher_response) for e in answered]
    for example, (start, stop) in zip(answered, groups, strict=True):
        pairs += [Pair(example.messages, text) for text in rollouts.texts[start:stop]]
    scores = learner.score(pairs)
    teacher, student = scores[: len(groups)], scores[len(groups) :]
    return teacher, [student[start:stop] for start, stop in groups]


def _verdict(
    teacher: Float32, student: Sequence[Float32], course: Sequence[float], *, seed: int
) -> FreshVerdict:
    def area(index: NDArray[np.int64]) -> float:
        return auc(teacher[index], np.concatenate([student[i] for i in index]))

    def preferred(index: NDArray[np.int64]) -> float:
        sides = [student[i] for i in index]
        return preference(np.repeat(teacher[index], [len(s) for s in sides]), np.concatenate(sides))

    size = len(teacher)
    return FreshVerdict(
        auc=bootstrap(partial(np.apply_along_axis, area, -1), size=size, seed=seed),
        d_acc=bootstrap(partial(np.apply_along_axis, preferred, -1), size=size, seed=seed),
        train_d_acc=float(np.mean(course[-max(1, len(course) // 4) :])),
        num_prompts=size,
        num_steps=len(course),
    )
