"""The critic on one rank: scores the step's samples, and learns to tell the teacher's text from the policy's."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import PromptBatch, RolloutBatch, ScoreBatch, TrainStats
from gad_ray.config.critic import CriticConfig
from gad_ray.core.discriminator import BradleyTerryStats, bradley_terry_loss
from gad_ray.core.packing import plan_group_batches
from gad_ray.errors import TrainingError
from gad_ray.learners.collective import Collective, own_share
from gad_ray.learners.critic_metrics import CriticLosses, critic_metrics
from gad_ray.learners.mode import without_dropout
from gad_ray.learners.optim import MasterOptimizer, ParameterGroup, StepResult
from gad_ray.models.critic import TORCH_DTYPES, CriticModel
from gad_ray.models.fingerprint import Fingerprint
from gad_ray.models.pairs import Pair, TokenRow, deduplicate


@dataclass(frozen=True, slots=True)
class _Group:
    """One prompt's distinct rows, and which of them are the teacher's and each response's."""

    rows: tuple[TokenRow, ...]
    teacher: int
    students: tuple[int, ...]
    positions: tuple[int, ...]
    """Places of the responses in the RolloutBatch."""


@dataclass(frozen=True, slots=True)
class _Totals:
    """Sizes of the global batch: the denominators of every mean."""

    prompts: int
    responses: int


class CriticLearner:
    """Holds the critic and its optimiser."""

    def __init__(
        self,
        config: CriticConfig,
        *,
        seed: int,
        total_steps: int,
        collective: Collective,
        max_nonfinite_steps: int,
        device: torch.device | None = None,
    ) -> None:
        """Load the backbone and make the value head.

        Args:
            config: The critic's settings.
            seed: Seed of the head's first weights.
            total_steps: Steps of the run, for the learning-rate schedule.
            collective: The ranks that share each batch.
            max_nonfinite_steps: Skipped optimiser steps in a row above which an update raises.
            device: Where to compute; the CPU when None.
        """
        self.config = config
        self.collective = collective
        self.model = CriticModel.build(
            config.model, pooling=config.pooling, max_tokens=config.max_tokens, seed=seed
        ).to(device)
        without_dropout(self.model, gradient_checkpointing=config.model.gradient_checkpointing)
        self._forward_seconds = 0.0
        lr = config.optimizer.lr
        self.optimizer = MasterOptimizer(
            [
                ParameterGroup(
                    parameters=dict(self.model.backbone.named_parameters(prefix="backbone")), lr=lr
                ),
                ParameterGroup(
                    parameters=dict(self.model.head.named_parameters(prefix="head")), lr=config.head_lr or lr
                ),
            ],
            config.optimizer,
            master_dtype=TORCH_DTYPES[config.model.master],
            total_steps=total_steps * config.updates_per_step,
            collective=collective,
            max_nonfinite_steps=max_nonfinite_steps,
        )

    @property
    def version(self) -> int:
        """Optimiser steps taken."""
        return self.optimizer.steps_taken

    def judge(self, prompts: PromptBatch, rollouts: RolloutBatch) -> tuple[ScoreBatch, TrainStats]:
        """Score the step's samples and update on them; the first update's forward pass gives the scores.

        Args:
            prompts: The step's prompts with the teacher's text.
            rollouts: The policy's responses to them.

        Returns:
            Scores from before the update, in the order of ``rollouts``, and what the update did. Every rank
            returns the whole batch's.

        Raises:
            TrainingError: If a score is not finite, or too many updates in a row were skipped.
        """
        started = time.perf_counter()
        self._forward_seconds = 0.0
        version = self.version
        groups, totals = self._tokenise(prompts, rollouts)
        scores, losses, result = self._update(groups, totals)
        batch = self._collect(groups, scores, len(rollouts), version)
        results = [result]
        for _ in range(self.config.updates_per_step - 1):
            _, _, result = self._update(groups, totals)
            results.append(result)
        last = results[-1]
        metrics = {
            **critic_metrics(batch, rollouts, losses=losses, config=self.config),
            "critic/grad_norm": last.grad_norm,
            "critic/grad_norm_before_clip": last.grad_norm_before_clip,
            "critic/lr": last.lr,
            "timing_s/score": self._forward_seconds,
        }
        skipped = sum(r.skipped for r in results)
        return batch, TrainStats(
            metrics=metrics,
            num_steps=len(results) - skipped,
            num_skipped=skipped,
            seconds=time.perf_counter() - started,
        )

    def score_batch(self, prompts: PromptBatch, rollouts: RolloutBatch) -> ScoreBatch:
        """Score the step's samples without learning from them, in the order of ``rollouts``."""
        groups, _ = self._tokenise(prompts, rollouts)
        scores = self._score_groups(groups, self._micro_batches(groups))
        return self._collect(groups, scores, len(rollouts), self.version)

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """[N] float32 scores of pairs of text."""
        return self.model.score(pairs, micro_batch_tokens=self.config.micro_batch_tokens)

    def fingerprint(self) -> Fingerprint:
        """Digest of everything that a score depends on."""
        return self.model.fingerprint()

    def export(self, out_dir: Path) -> Fingerprint:
        """Write a directory that scores without the run."""
        temperature = self.config.loss.temperature.value
        return self.model.export(out_dir, step=self.version, temperature=temperature)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training needs to go on, for a checkpoint."""
        return self.optimizer.state()

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.optimizer.load_state(tensors, plain)

    # -- one update ---------------------------------------------------------------------------------

    def _tokenise(self, prompts: PromptBatch, rollouts: RolloutBatch) -> tuple[list[_Group], _Totals]:
        """This rank's groups, and the sizes of the whole batch."""
        examples = {example.id: example for example in prompts.examples}
        bounds = rollouts.groups()
        groups: list[_Group] = []
        for start, stop in own_share(bounds, self.collective):
            example = examples[rollouts.example_ids[start]]
            texts = [example.teacher_response, *rollouts.texts[start:stop]]
            distinct, index = deduplicate([Pair(example.messages, text) for text in texts])
            groups.append(
                _Group(
                    rows=tuple(self.model.encoder.encode(pair) for pair in distinct),
                    teacher=int(index[0]),
                    students=tuple(int(i) for i in index[1:]),
                    positions=tuple(range(start, stop)),
                )
            )
        return groups, _Totals(prompts=len(bounds), responses=len(rollouts))

    def _micro_batches(self, groups: Sequence[_Group]) -> list[list[int]]:
        lengths = [[len(row) for row in group.rows] for group in groups]
        return plan_group_batches(lengths, max_tokens=self.config.micro_batch_tokens)

    def _forward(self, groups: Sequence[_Group]) -> Tensor:
        started = time.perf_counter()
        scores = self.model.scores([row for group in groups for row in group.rows])
        self._forward_seconds += time.perf_counter() - started
        return scores

    def _update(
        self, groups: Sequence[_Group], totals: _Totals
    ) -> tuple[list[NDArray[np.float32]], CriticLosses, StepResult]:
        """One optimiser step; returns the scores before it, the parts of the loss, and the step's result."""
        micro_batches = self._micro_batches(groups)
        if self.config.loss.batch_norm and (len(micro_batches) > 1 or self.collective.size > 1):
            scores, losses = self._backward_in_two_passes(groups, micro_batches)
        else:
            scores, losses = self._backward(groups, micro_batches, totals)
        return scores, losses, self.optimizer.step(losses.rank + losses.reg)

    def _backward(
        self, groups: Sequence[_Group], micro_batches: Sequence[Sequence[int]], totals: _Totals
    ) -> tuple[list[NDArray[np.float32]], CriticLosses]:
        """Gradients where the loss is a sum over groups, or one micro-batch holds them all: one pass."""
        scores = _no_scores(groups)
        rank = reg = 0.0
        mean, std = 0.0, 1.0
        for members in micro_batches:
            part = [groups[i] for i in members]
            flat = self._forward(part)
            teacher, student, index = _by_side(part, flat)
            loss, stats = self._loss(teacher, student, index, totals)
            loss.backward()
            self.optimizer.accumulate()
            rank, reg = rank + float(stats.rank), reg + float(stats.reg)
            mean, std = float(stats.batch_mean), float(stats.batch_std)
            _keep(scores, groups, members, flat)
        shares = torch.tensor([rank, reg], dtype=torch.float64)
        self.collective.add_up([shares])
        return scores, CriticLosses(
            rank=float(shares[0]), reg=float(shares[1]), batch_mean=mean, batch_std=std
        )

    def _backward_in_two_passes(
        self, groups: Sequence[_Group], micro_batches: Sequence[Sequence[int]]
    ) -> tuple[list[NDArray[np.float32]], CriticLosses]:
        """Gradients where the loss needs every score of the global batch at once, and they do not fit.

        The first pass scores; the loss of all scores gives each score's gradient; the second pass sends
        that through the model, one micro-batch after the other.
        """
        scores = self._score_groups(groups, micro_batches)
        teacher = _leaf([scores[i][g.teacher] for i, g in enumerate(groups)])
        student = _leaf([scores[i][k] for i, g in enumerate(groups) for k in g.students])
        sizes = np.asarray([len(g.students) for g in groups], dtype=np.float32)
        all_teacher, all_student = self._join(teacher), self._join(student)
        all_sizes = np.concatenate(self.collective.gather(sizes)).astype(np.int64)
        index = torch.repeat_interleave(torch.arange(len(all_sizes)), torch.from_numpy(all_sizes))
        totals = _Totals(prompts=len(all_teacher), responses=len(all_student))
        loss, stats = self._loss(all_teacher, all_student, index, totals)
        to_teacher, to_student = torch.autograd.grad(loss, [teacher, student])
        first = np.concatenate([[0], np.cumsum([len(g.students) for g in groups])])
        for members in micro_batches:
            part = [groups[i] for i in members]
            got_teacher, got_student, _ = _by_side(part, self._forward(part))
            wanted = [to_student[int(first[i]) : int(first[i + 1])] for i in members]
            torch.autograd.backward(
                [got_teacher, got_student],
                [to_teacher[list(members)].to(got_teacher), torch.cat(wanted).to(got_student)],
            )
            self.optimizer.accumulate()
        return scores, CriticLosses(
            rank=float(stats.rank),
            reg=float(stats.reg),
            batch_mean=float(stats.batch_mean),
            batch_std=float(stats.batch_std),
        )

    def _loss(
        self, teacher: Tensor, student: Tensor, index: Tensor, totals: _Totals
    ) -> tuple[Tensor, BradleyTerryStats]:
        loss = self.config.loss
        return bradley_terry_loss(
            teacher,
            student,
            group=index.to(student.device),
            temperature=loss.temperature.value,
            margin=loss.margin,
            reg_threshold=loss.score_reg.threshold,
            reg_weight=loss.score_reg.weight,
            batch_norm=loss.batch_norm,
            num_prompts=totals.prompts,
            num_responses=totals.responses,
        )

    def _join(self, own: Tensor) -> Tensor:
        """The scores of all ranks in rank order, this rank's with its gradient."""
        parts = [torch.from_numpy(p) for p in self.collective.gather(own.detach().numpy())]
        parts[self.collective.rank] = own
        return torch.cat(parts)

    def _score_groups(
        self, groups: Sequence[_Group], micro_batches: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        scores = _no_scores(groups)
        with torch.no_grad():
            for members in micro_batches:
                _keep(scores, groups, members, self._forward([groups[i] for i in members]))
        return scores

    def _collect(
        self,
        groups: Sequence[_Group],
        scores: Sequence[NDArray[np.float32]],
        num_responses: int,
        version: int,
    ) -> ScoreBatch:
        """Join the ranks' scores in the order of the RolloutBatch.

        Raises:
            TrainingError: If a score is not finite.
        """
        positions = [p for g in groups for p in g.positions]
        own_teacher = [s[g.teacher] for g, s in zip(groups, scores, strict=True) for _ in g.students]
        own_student = [s[k] for g, s in zip(groups, scores, strict=True) for k in g.students]
        # float32 holds every position exactly up to 2**24 responses.
        where = np.concatenate(self.collective.gather(np.asarray(positions, dtype=np.float32))).astype(
            np.int64
        )
        student, teacher = np.empty(num_responses, np.float32), np.empty(num_responses, np.float32)
        student[where] = np.concatenate(self.collective.gather(np.asarray(own_student, dtype=np.float32)))
        teacher[where] = np.concatenate(self.collective.gather(np.asarray(own_teacher, dtype=np.float32)))
        finite = np.isfinite(student) & np.isfinite(teacher)
        if not finite.all():
            raise TrainingError(
                f"{int((~finite).sum())} of {num_responses} pairs have a score that is not finite, after "
                f"{version} steps of the critic: there is no reward to be made of them",
                mend="lower critic.optimizer.lr or critic.head_lr, or set critic.model.compute=float32",
            )
        return ScoreBatch(student=student, teacher=teacher, critic_version=version)


def _by_side(groups: Sequence[_Group], flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher scores [P], student scores [R] and each response's prompt [R], out of scores of distinct rows."""
    teacher: list[int] = []
    student: list[int] = []
    index: list[int] = []
    offset = 0
    for g, group in enumerate(groups):
        teacher.append(offset + group.teacher)
        student.extend(offset + k for k in group.students)
        index.extend([g] * len(group.students))
        offset += len(group.rows)
    return flat[teacher], flat[student], torch.tensor(index, dtype=torch.int64)


def _no_scores(groups: Sequence[_Group]) -> list[NDArray[np.float32]]:
    return [np.zeros(len(group.rows), dtype=np.float32) for group in groups]


def _keep(
    scores: list[NDArray[np.float32]], groups: Sequence[_Group], members: Sequence[int], flat: Tensor
) -> None:
    sizes = [len(groups[i].rows) for i in members]
    for i, piece in zip(members, flat.detach().cpu().split(sizes), strict=True):
        scores[i] = piece.numpy()


def _leaf(values: Sequence[Any]) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float32)).requires_grad_()
