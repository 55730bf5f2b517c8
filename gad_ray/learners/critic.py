"""The critic on one rank: scores the step's samples, and learns to tell the teacher's text from the policy's."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import Fingerprint, Metrics, PromptBatch, RolloutBatch, ScoreBatch, TrainStats
from gad_ray.config.critic import CriticConfig
from gad_ray.core.discriminator import DiscriminatorStats, FixedTemperature
from gad_ray.learners.backends import new_backend
from gad_ray.learners.collective import Collective
from gad_ray.learners.critic_batch import (
    Group,
    Totals,
    by_side,
    collect_scores,
    fresh_groups,
    keep_scores,
    learned_from,
    no_scores,
    past_responses,
    replayed_groups,
)
from gad_ray.learners.critic_metrics import (
    CriticLosses,
    critic_metrics,
    mix_metrics,
    trained_metrics,
    update_metrics,
)
from gad_ray.learners.critic_objective import (
    discriminator_loss,
    first_temperature,
    losses_from,
    losses_of,
    shares_of,
)
from gad_ray.learners.eval_mode import without_dropout
from gad_ray.learners.optim import ParameterGroup, StepResult
from gad_ray.learners.replay import PastResponse, ReplayBuffer
from gad_ray.learners.token_values import ValueWatch
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic
from gad_ray.models.critic_state import CriticState, state_of
from gad_ray.models.load import TORCH_DTYPES
from gad_ray.models.pairs import Pair
from gad_ray.models.sequence_packing import plan_group_passes


class CriticLearner:
    """Holds the critic and the backend that trains it."""

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
            config.model,
            pooling=config.pooling,
            max_tokens=config.max_tokens,
            seed=seed,
            packing=config.packing,
        ).to(device)
        without_dropout(self.model, gradient_checkpointing=config.model.gradient_checkpointing)
        _ = self.model.packs  # tried while the model is whole: a backend may take it apart
        self.replay = None if config.replay is None else ReplayBuffer(config.replay, seed=seed)
        self._temperature = first_temperature(config.loss)
        self._forward_seconds = 0.0
        self._watch = ValueWatch((), count=0)
        self.backend = new_backend(config, collective=collective, max_nonfinite_steps=max_nonfinite_steps)
        lr, model = config.optimizer.lr, self.model
        self.backend.wrap(
            model,
            [
                ParameterGroup(parameters=dict(model.backbone.named_parameters(prefix="backbone")), lr=lr),
                ParameterGroup(
                    parameters=dict(model.head.named_parameters(prefix="head")), lr=config.head_lr or lr
                ),
            ],
            total_steps=total_steps * config.updates_per_step,
        )

    where = "training"
    """Where this critic is, for messages."""

    @property
    def version(self) -> int:
        """Optimiser steps taken."""
        return self.backend.steps_taken

    @property
    def step(self) -> int:
        """The same: by this name whoever only scores with a critic knows it."""
        return self.version

    @property
    def temperature(self) -> float:
        """τ of the loss; the latest where it is adaptive."""
        return self._temperature

    def score_and_update(
        self, prompts: PromptBatch, rollouts: RolloutBatch, *, num_watched: int = 0
    ) -> tuple[ScoreBatch, TrainStats]:
        """Score the step's samples and update on them; the first update's forward pass gives the scores.

        Args:
            prompts: The step's prompts with the teacher's text.
            rollouts: The policy's responses to them.
            num_watched: Responses of this rank's whose tokens' values are kept with the scores.

        Returns:
            Scores from before the update, in the order of ``rollouts``, and what the update did. Every rank
            returns the whole batch's.

        Raises:
            TrainingError: If a score is not finite, or too many updates in a row were skipped.
        """
        started = time.perf_counter()
        self._forward_seconds = 0.0
        version = self.version
        learned = learned_from(rollouts, truncated=self.config.truncated)
        groups, totals = self._fresh(prompts, rollouts, learned)
        watch = self._watch = ValueWatch(groups, count=num_watched)
        past = self._draw(totals, rollouts.step)
        if past:
            more, sizes = replayed_groups(past, encoder=self.model.encoder, collective=self.collective)
            groups = [*groups, *more]
            totals = Totals(totals.prompts + sizes.prompts, totals.responses + sizes.responses)
        scores, losses, results = self._updates(groups, totals)
        batch = collect_scores(
            groups, scores, collective=self.collective, num_responses=len(rollouts), version=version
        )
        batch = replace(batch, token_values=watch.collected(prompts, rollouts, self.model.encoder.chat))
        trained: Metrics = {}
        if past and losses is not None:
            # What was trained on is told under names of its own; all else tells of the fresh responses alone, at
            # the temperature that was trained with.
            trained = trained_metrics(losses, self.config)
            losses = losses_of(self.config.loss, batch, rollouts, learned, temperature=losses.temperature)
        metrics = {
            **critic_metrics(batch, rollouts, losses=losses, config=self.config),
            **trained,
            **mix_metrics(groups, batch, collective=self.collective, pooling=self.config.pooling),
            **update_metrics(results),
            "timing_s/score": self._forward_seconds,
        }
        if self.config.truncated == "exclude":
            metrics["critic/truncated_excluded"] = float(len(rollouts) - learned.sum())
        if self.replay is not None:
            self.replay.add(past_responses(prompts, rollouts, learned=learned))
            metrics["critic/replay_size"] = float(len(self.replay))
            if past:
                metrics["critic/replay_age"] = float(np.mean([rollouts.step - one.step for one in past]))
        skipped = sum(r.skipped for r in results)
        return batch, TrainStats(
            metrics=metrics,
            num_steps=len(results) - skipped,
            num_skipped=skipped,
            seconds=time.perf_counter() - started,
        )

    def score_batch(self, prompts: PromptBatch, rollouts: RolloutBatch) -> ScoreBatch:
        """Score the step's samples without learning from them, in the order of ``rollouts``."""
        groups, _ = self._fresh(prompts, rollouts, learned_from(rollouts, truncated="keep"))
        scores = self._score_groups(groups, self._micro_batches(groups))
        return collect_scores(
            groups, scores, collective=self.collective, num_responses=len(rollouts), version=self.version
        )

    def take_settings(self, config: CriticConfig) -> None:
        """Take over what may change while a run goes: a fixed τ of the loss, and the updates per step.

        More updates than the run began with also take the learning-rate schedule on faster.
        """
        self.config = self.config.model_copy(
            update={"loss": config.loss, "updates_per_step": config.updates_per_step}
        )
        if isinstance(config.loss.temperature, FixedTemperature):
            self._temperature = config.loss.temperature.value

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """[N] float32 scores of pairs of text."""
        return self.model.score(pairs, micro_batch_tokens=self.config.pass_tokens)

    def fingerprint(self) -> Fingerprint:
        """Digest of everything that a score depends on."""
        return self.model.fingerprint(weights=self._full_weights())

    def export(self, out_dir: Path) -> Fingerprint:
        """Write a directory that scores without the run."""
        return export_critic(self.model, out_dir, step=self.version, temperature=self._temperature)

    def published(self, frame: Mapping[str, bytes]) -> CriticState:
        """The critic as an export would hold it, without a file.

        Args:
            frame: What :func:`gad_ray.models.critic_state.frame_of` gives for this critic.

        Raises:
            ModelError: If a weight is not finite.
        """
        return state_of(
            self.model,
            step=self.version,
            temperature=self._temperature,
            frame=frame,
            weights=self._full_weights(),
        )

    def _full_weights(self) -> dict[str, Tensor]:
        """The backbone's weights as they score."""
        dtype = TORCH_DTYPES[self.model.dtype]
        return dict(self.backend.full_weights(self.model.backbone, dtype))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training needs to go on, for a checkpoint."""
        tensors, plain = self.backend.state()
        plain["temperature"] = self._temperature
        if self.replay is not None:
            # Text can be long: as a tensor it is not bound to the size of a file's header.
            tensors["replay"], plain["replay_rng"] = self.replay.state()
        return tensors, plain

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.backend.load_state(tensors, plain)
        self.model.updates = self.version
        self._temperature = float(plain["temperature"])
        if self.replay is not None:
            self.replay.load_state(tensors["replay"], plain["replay_rng"])

    # -- one update ---------------------------------------------------------------------------------

    def _fresh(
        self, prompts: PromptBatch, rollouts: RolloutBatch, learned: NDArray[np.bool_]
    ) -> tuple[list[Group], Totals]:
        return fresh_groups(
            prompts, rollouts, learned=learned, encoder=self.model.encoder, collective=self.collective
        )

    def _draw(self, fresh: Totals, step: int) -> list[PastResponse]:
        return [] if self.replay is None else self.replay.draw(num_fresh=fresh.responses, step=step)

    def _updates(
        self, groups: Sequence[Group], totals: Totals
    ) -> tuple[list[NDArray[np.float32]], CriticLosses | None, list[StepResult]]:
        """All optimiser steps on a batch; scores and losses are those before the first.

        A batch without any response to learn from is scored only.
        """
        if totals.responses == 0:
            return self._score_groups(groups, self._micro_batches(groups)), None, []
        scores, losses, result = self._update(groups, totals)
        results = [result]
        for _ in range(self.config.updates_per_step - 1):
            _, _, result = self._update(groups, totals)
            results.append(result)
        return scores, losses, results

    def _micro_batches(self, groups: Sequence[Group]) -> list[list[int]]:
        rows = [group.rows for group in groups]
        return plan_group_passes(rows, max_tokens=self.config.pass_tokens, packs=self.model.packs)

    def _forward(self, groups: Sequence[Group]) -> Tensor:
        started = time.perf_counter()
        rows = [row for group in groups for row in group.rows]
        values = self.model.row_values(rows)
        self._watch.see(rows, values)
        scores = self.model.pooled(values, rows)
        self._forward_seconds += time.perf_counter() - started
        return scores

    def _update(
        self, groups: Sequence[Group], totals: Totals
    ) -> tuple[list[NDArray[np.float32]], CriticLosses, StepResult]:
        """One optimiser step; returns the scores before it, the parts of the loss, and the step's result."""
        micro_batches = self._micro_batches(groups)
        if self.config.loss.needs_whole_batch and (len(micro_batches) > 1 or self.collective.size > 1):
            scores, losses = self._backward_in_two_passes(groups, micro_batches)
        else:
            scores, losses = self._backward(groups, micro_batches, totals)
        if losses.temperature is not None:
            self._temperature = losses.temperature
        result = self.backend.clip_and_step(losses.rank + losses.reg)
        self.model.updates = self.version
        return scores, losses, result

    def _backward(
        self, groups: Sequence[Group], micro_batches: Sequence[Sequence[int]], totals: Totals
    ) -> tuple[list[NDArray[np.float32]], CriticLosses]:
        """Gradients where the loss is a sum over groups, or one micro-batch holds them all: one pass."""
        scores = no_scores(groups)
        parts: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)]
        whole: DiscriminatorStats | None = None
        for members in micro_batches:
            part = [groups[i] for i in members]
            flat = self._forward(part)
            teacher, student, index = by_side(part, flat)
            loss, stats = discriminator_loss(self.config.loss, teacher, student, index, totals)
            self.backend.backward(loss)
            parts.append(shares_of(stats))
            whole = stats
            keep_scores(scores, groups, members, flat)
        shares = torch.tensor(parts, dtype=torch.float64).sum(dim=0)
        self.collective.add_up([shares])
        return scores, losses_from(self.config.loss, whole, shares=shares.tolist())

    def _backward_in_two_passes(
        self, groups: Sequence[Group], micro_batches: Sequence[Sequence[int]]
    ) -> tuple[list[NDArray[np.float32]], CriticLosses]:
        """Gradients where the loss needs every score of the global batch at once, and they do not fit.

        The first pass scores; the loss of all scores gives each score's gradient; the second pass sends
        that through the model, one micro-batch after the other.
        """
        scores = self._score_groups(groups, micro_batches)
        # Places of each group's scores among those of this rank that enter the loss.
        sizes = np.asarray([len(g.trained) for g in groups], dtype=np.int64)
        first = np.concatenate([[0], np.cumsum(sizes)])
        place = np.cumsum(sizes > 0) - 1
        teacher = _leaf([scores[i][g.teacher] for i, g in enumerate(groups) if g.trained])
        student = _leaf([scores[i][k] for i, g in enumerate(groups) for k in g.trained])
        all_teacher, all_student = self._join(teacher), self._join(student)
        all_sizes = np.concatenate(self.collective.gather(sizes[sizes > 0].astype(np.float32))).astype(
            np.int64
        )
        index = torch.repeat_interleave(torch.arange(len(all_sizes)), torch.from_numpy(all_sizes))
        totals = Totals(prompts=len(all_teacher), responses=len(all_student))
        loss, stats = discriminator_loss(self.config.loss, all_teacher, all_student, index, totals)
        to_teacher, to_student = torch.autograd.grad(loss, [teacher, student])
        for members in micro_batches:
            part = [groups[i] for i in members]
            got_teacher, got_student, _ = by_side(part, self._forward(part))
            wanted = [to_student[int(first[i]) : int(first[i + 1])] for i in members]
            given = to_teacher[[int(place[i]) for i in members if sizes[i]]].to(got_teacher)
            # A number whose gradient is the loss's own.
            self.backend.backward(
                (got_teacher * given).sum() + (got_student * torch.cat(wanted).to(got_student)).sum()
            )
        return scores, losses_from(self.config.loss, stats)

    def _join(self, own: Tensor) -> Tensor:
        """The scores of all ranks in rank order, this rank's with its gradient."""
        parts = [torch.from_numpy(p) for p in self.collective.gather(own.detach().numpy())]
        parts[self.collective.rank] = own
        return torch.cat(parts)

    def _score_groups(
        self, groups: Sequence[Group], micro_batches: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        scores = no_scores(groups)
        with torch.no_grad():
            for members in micro_batches:
                keep_scores(scores, groups, members, self._forward([groups[i] for i in members]))
        return scores


def _leaf(values: Sequence[Any]) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float32)).requires_grad_()
