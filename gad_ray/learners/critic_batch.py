"""What one update of the critic works on: groups of tokenised pairs, a prompt each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import Example, Message, PromptBatch, RolloutBatch, ScoreBatch, StopReason
from gad_ray.errors import TrainingError
from gad_ray.learners.collective import Collective, own_share
from gad_ray.learners.replay import PastResponse
from gad_ray.models.pairs import Pair, PairEncoder, TokenRow, deduplicate


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt's distinct rows, and which of them are the teacher's and each response's."""

    rows: tuple[TokenRow, ...]
    teacher: int
    students: tuple[int, ...]
    """Rows of the fresh responses, in their order; empty for a replayed group."""
    positions: tuple[int, ...]
    """Places of the fresh responses in the RolloutBatch."""
    trained: tuple[int, ...]
    """Rows of the responses that enter the loss; the teacher's does if there is one."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sizes of the global batch that enters the loss: the denominators of every mean."""

    prompts: int
    responses: int


def learned_from(rollouts: RolloutBatch, *, truncated: str) -> NDArray[np.bool_]:
    """[R] whether the critic learns from each response: from those cut at the limit unless they are excluded."""
    if truncated == "keep":
        return np.ones(len(rollouts), dtype=np.bool_)
    return np.asarray([reason is not StopReason.LENGTH for reason in rollouts.stop_reasons], dtype=np.bool_)


def fresh_groups(
    prompts: PromptBatch,
    rollouts: RolloutBatch,
    *,
    learned: NDArray[np.bool_],
    encoder: PairEncoder,
    collective: Collective,
) -> tuple[list[Group], Totals]:
    """This rank's groups of the step's samples, and the sizes of the whole batch.

    Args:
        prompts: The step's prompts with the teacher's text.
        rollouts: The responses to them.
        learned: [R] which of them enter the loss; the others are scored only.
        encoder: Tokenises the pairs.
        collective: The ranks that share the batch.
    """
    examples = {example.id: example for example in prompts.examples}
    bounds = rollouts.groups()
    groups: list[Group] = []
    for start, stop in own_share(bounds, collective):
        example = examples[rollouts.example_ids[start]]
        rows, index = _tokenise(
            example.messages, [example.teacher_response, *rollouts.texts[start:stop]], encoder
        )
        students = tuple(int(i) for i in index[1:])
        groups.append(
            Group(
                rows=rows,
                teacher=int(index[0]),
                students=students,
                positions=tuple(range(start, stop)),
                trained=tuple(k for k, use in zip(students, learned[start:stop], strict=True) if use),
            )
        )
    num_prompts = sum(bool(learned[start:stop].any()) for start, stop in bounds)
    return groups, Totals(prompts=num_prompts, responses=int(learned.sum()))


def replayed_groups(
    past: Sequence[PastResponse], *, encoder: PairEncoder, collective: Collective
) -> tuple[list[Group], Totals]:
    """This rank's groups of replayed responses, and the sizes of all of them; the teacher's text is shared."""
    by_prompt: dict[tuple[tuple[Message, ...], str], list[str]] = {}
    for one in past:
        by_prompt.setdefault((one.messages, one.teacher), []).append(one.response)
    groups: list[Group] = []
    for (messages, teacher), responses in own_share(list(by_prompt.items()), collective):
        rows, index = _tokenise(messages, [teacher, *responses], encoder)
        trained = tuple(int(i) for i in index[1:])
        groups.append(Group(rows=rows, teacher=int(index[0]), students=(), positions=(), trained=trained))
    return groups, Totals(prompts=len(by_prompt), responses=len(past))


def past_responses(
    prompts: PromptBatch, rollouts: RolloutBatch, *, learned: NDArray[np.bool_]
) -> list[PastResponse]:
    """What a step leaves to later ones: its responses that the critic learned from."""
    examples: dict[str, Example] = {example.id: example for example in prompts.examples}
    owners = [examples[i] for i in rollouts.example_ids]
    return [
        PastResponse(
            messages=owner.messages, teacher=owner.teacher_response, response=text, step=rollouts.step
        )
        for owner, text, use in zip(owners, rollouts.texts, learned, strict=True)
        if use
    ]


def by_side(groups: Iterable[Group], flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher scores [P], student scores [R] and each response's prompt [R], out of scores of distinct rows.

    Only of what enters the loss.
    """
    teacher: list[int] = []
    student: list[int] = []
    index: list[int] = []
    offset = 0
    for group in groups:
        if group.trained:
            index.extend([len(teacher)] * len(group.trained))
            teacher.append(offset + group.teacher)
            student.extend(offset + k for k in group.trained)
        offset += len(group.rows)
    return flat[teacher], flat[student], torch.tensor(index, dtype=torch.int64)


def no_scores(groups: Sequence[Group]) -> list[NDArray[np.float32]]:
    """A place for the score of every row of every group."""
    return [np.zeros(len(group.rows), dtype=np.float32) for group in groups]


def keep_scores(
    scores: list[NDArray[np.float32]], groups: Sequence[Group], members: Sequence[int], flat: Tensor
) -> None:
    """Put the scores of one forward pass over the groups ``members`` into their places."""
    sizes = [len(groups[i].rows) for i in members]
    for i, piece in zip(members, flat.detach().cpu().split(sizes), strict=True):
        scores[i] = piece.numpy()


def collect_scores(
    groups: Sequence[Group],
    scores: Sequence[NDArray[np.float32]],
    *,
    collective: Collective,
    num_responses: int,
    version: int,
) -> ScoreBatch:
    """Join the ranks' scores of fresh responses in the order of the RolloutBatch.

    Args:
        groups: This rank's groups.
        scores: The scores of their rows.
        collective: The ranks that share the batch.
        num_responses: Fresh responses of all ranks.
        version: Optimiser steps that the critic had taken.

    Raises:
        TrainingError: If a score is not finite.
    """
    teacher, student = in_order(groups, scores, collective=collective, num_responses=num_responses)
    finite = np.isfinite(student) & np.isfinite(teacher)
    if not finite.all():
        raise TrainingError(
            f"{int((~finite).sum())} of {num_responses} pairs have a score that is not finite, after "
            f"{version} steps of the critic: there is no reward to be made of them",
            hint="lower critic.optimizer.lr or critic.head_lr, or set critic.model.compute=float32",
        )
    return ScoreBatch(student=student, teacher=teacher, critic_version=version)


def in_order(
    groups: Sequence[Group],
    values: Sequence[NDArray[np.float32]],
    *,
    collective: Collective,
    num_responses: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[R] values of the teacher's row and of its own for every fresh response of all ranks, in their order.

    Args:
        groups: This rank's groups.
        values: A number for every row of every group.
        collective: The ranks that share the batch.
        num_responses: Fresh responses of all ranks.
    """
    positions = [p for g in groups for p in g.positions]
    own_teacher = [v[g.teacher] for g, v in zip(groups, values, strict=True) for _ in g.students]
    own_student = [v[k] for g, v in zip(groups, values, strict=True) for k in g.students]
    # float32 holds every position exactly up to 2**24 responses.
    where = np.concatenate(collective.gather(np.asarray(positions, dtype=np.float32))).astype(np.int64)
    student, teacher = np.empty(num_responses, np.float32), np.empty(num_responses, np.float32)
    student[where] = np.concatenate(collective.gather(np.asarray(own_student, dtype=np.float32)))
    teacher[where] = np.concatenate(collective.gather(np.asarray(own_teacher, dtype=np.float32)))
    return teacher, student


def _tokenise(
    messages: tuple[Message, ...], texts: Sequence[str], encoder: PairEncoder
) -> tuple[tuple[TokenRow, ...], NDArray[np.int64]]:
    distinct, index = deduplicate([Pair(messages, text) for text in texts])
    return tuple(encoder.encode(pair) for pair in distinct), index
