"""The policy on one rank: policy gradient on the critic's score, and cross-entropy on the teacher's text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import (
    Example,
    Float32,
    Metrics,
    PromptBatch,
    RolloutBatch,
    TrainBatch,
    TrainStats,
    WeightsSnapshot,
)
from gad_ray.config.policy import PolicyConfig
from gad_ray.core.policy_loss import POLICY_LOSSES, LossBatch
from gad_ray.learners.backends import new_backend
from gad_ray.learners.collective import Collective, own_share
from gad_ray.learners.eval_mode import without_dropout
from gad_ray.learners.kl_penalty import KlPenalty
from gad_ray.learners.optim import ParameterGroup, StepResult
from gad_ray.learners.policy_loss import Totals, importance_weights
from gad_ray.learners.policy_metrics import PolicySums
from gad_ray.learners.weights import ShadowModel, arrays_of, perturbed
from gad_ray.models.load import TORCH_DTYPES, export_hf
from gad_ray.models.policy import PolicyModel, SequenceRow, rows_of, teacher_row
from gad_ray.models.sequence_packing import plan_passes


@dataclass(frozen=True, slots=True)
class _Sample:
    """One response with what its loss needs; tensors of [response tokens]."""

    row: SequenceRow
    advantage: float
    rollout_logprobs: Float32
    is_stale: bool
    """Drawn by an older policy, with no importance weights to correct for it: π_old is the engine's."""


class PolicyLearner:
    """Holds the student, the backend that trains it, and the reference of the KL penalty."""

    def __init__(
        self,
        config: PolicyConfig,
        *,
        mini_batch_prompts: int,
        total_steps: int,
        fit_steps: int | None = None,
        warmup_lr: float | None,
        collective: Collective,
        max_nonfinite_steps: int,
        device: torch.device | None = None,
    ) -> None:
        """Load the student.

        Args:
            config: The policy's settings.
            mini_batch_prompts: Prompts of one optimiser step over all ranks.
            total_steps: Optimiser steps of the adversarial stage, for its learning-rate schedule.
            fit_steps: Optimiser steps of the cross-entropy before it, for a schedule of its own; ``total_steps`` when
                None.
            warmup_lr: Learning rate of the cross-entropy warm start; the optimiser's when None.
            collective: The ranks that share each batch.
            max_nonfinite_steps: Skipped optimiser steps in a row above which an update raises.
            device: Where to compute; the CPU when None.

        Raises:
            ModelError: If the model cannot be found or loaded.
        """
        self.config = config
        self.collective = collective
        self.version = 0
        self._mini_batch_prompts = mini_batch_prompts
        self._total_steps = total_steps
        self.model = PolicyModel.build(config.model, packing=config.packing).to(device)
        without_dropout(self.model, gradient_checkpointing=config.model.gradient_checkpointing)
        _ = self.model.packs  # tried while the model is whole: a backend may take it apart
        self._shadow = ShadowModel(self.model)
        self._kl = KlPenalty(config.kl)
        self._in_game = False
        self.backend = new_backend(config, collective=collective, max_nonfinite_steps=max_nonfinite_steps)
        self.backend.wrap(
            self.model,
            [ParameterGroup(parameters=self.model.trainable(), lr=warmup_lr or config.optimizer.lr)],
            total_steps=total_steps if fit_steps is None else fit_steps,
        )

    # -- the game -----------------------------------------------------------------------------------

    def begin_adversarial(self) -> None:
        """Take the KL reference, and start the game's optimiser afresh: its gradients are of another loss."""
        self._kl.begin_stage(self.model.trainable())
        self.backend.restart(lr=self.config.optimizer.lr, total_steps=self._total_steps)
        self._in_game = True

    def kl_penalty(self, rollouts: RolloutBatch) -> Float32:
        """[R] what the KL term takes from each response's reward, where it is part of the reward.

        Args:
            rollouts: The policy's responses; every rank gets all of them and computes its share.
        """
        self._kl.begin_step(self.model.trainable())
        rows = rows_of(rollouts)
        return self._kl.coefficient * self._kl_sums(rows, temperature=rollouts.sampling.temperature)

    def update(self, batch: TrainBatch) -> TrainStats:
        """One step of the game, on log-probabilities at the temperature that the responses were sampled at.

        Responses of an older policy than this one, with no importance weights to correct for it, take what the engine
        gave them when they were drawn for π_old: the ratio and its clip then bind against the policy that drew them.

        Args:
            batch: The policy's responses with their advantages; every rank gets all of them and trains on its share.

        Returns:
            The step's metrics over the whole batch, the same on every rank. Without any response to train on,
            the policy stands still.
        """
        started = time.perf_counter()
        rows = rows_of(batch)
        sums = PolicySums()
        metrics: Metrics = {}
        if batch.penalty is None:
            self._kl.begin_step(self.model.trainable())
        stale = (batch.policy_versions != self.version) & (self.config.importance is None)
        samples = [
            _Sample(row, float(advantage), logprobs, bool(is_stale))
            for row, advantage, logprobs, is_stale in zip(
                rows, batch.advantages, batch.logprobs, stale, strict=True
            )
        ]
        groups = [[samples[i] for i in members] for members in _members(batch)]
        size = self._mini_batch_prompts
        self._train(
            [groups[i : i + size] for i in range(0, len(groups), size)],
            sums,
            temperature=batch.sampling.temperature,
        )
        self.version += 1
        metrics |= sums.metrics(self.collective, kl=self._kl, importance=self.config.importance)
        if batch.penalty is not None and metrics:
            metrics["reward/kl_penalty_mean"] = float(batch.penalty.mean())
            metrics["actor/kl_loss"] = (
                float(batch.penalty.sum()) / self._kl.coefficient / len(batch.response_tokens.values)
            )
        self._kl.end_step(metrics.get("actor/kl_loss", 0.0), num_responses=int(batch.kept.sum()))
        if batch.kept.any():
            used = torch.from_numpy(batch.advantages[batch.kept])
            metrics["actor/adv_std"] = float(used.std(correction=0))
            metrics["actor/adv_max"] = float(used.abs().max())
        metrics["actor/lone_samples"] = float(batch.num_alone)
        if self.config.advantage.zero_spread == "drop":
            metrics["actor/dropped_samples"] = float(batch.num_no_spread)
        if self.config.advantage.refill is not None:
            metrics["actor/surplus_samples"] = float(batch.num_surplus)
        return self._stats(metrics, sums.results, started, tokens=sum(len(s.row) for s in samples))

    def _train(
        self,
        mini_batches: Sequence[Sequence[Sequence[_Sample]]],
        sums: PolicySums,
        *,
        temperature: float,
    ) -> None:
        """All optimiser steps of one batch.

        The first step on fresh samples needs no pass for π_old: it is the policy itself, so that ρ is exactly 1.
        Later steps are over a policy that has moved, and take π_old from a pass made before the first. For stale
        samples π_old is the engine's; a batch may hold both.
        """
        own = [
            [sample for group in own_share(batch, self.collective) for sample in group]
            for batch in mini_batches
        ]
        totals = [_totals(batch) for batch in mini_batches]
        epochs = self.config.epochs_per_step
        # The first mini-batch's own first pass is its π_old; only further epochs come back to it.
        passes = [
            self._logprobs(batch, temperature=temperature)
            if (i > 0 or epochs > 1) and not all(s.is_stale for s in batch)
            else [None] * len(batch)
            for i, batch in enumerate(own)
        ]
        for epoch in range(epochs):
            for i, (batch, total) in enumerate(zip(own, totals, strict=True)):
                fresh = [None] * len(batch) if epoch == 0 and i == 0 else passes[i]
                old = [
                    _tensor(s.rollout_logprobs) if s.is_stale else logprobs
                    for s, logprobs in zip(batch, fresh, strict=True)
                ]
                self._step(batch, total, old, sums, temperature=temperature)

    def _step(
        self,
        samples: Sequence[_Sample],
        totals: Totals,
        old: Sequence[Tensor | None],
        sums: PolicySums,
        *,
        temperature: float,
    ) -> None:
        """Accumulate the gradient of one mini-batch over micro-batches, and take the optimiser step.

        Args:
            samples: This rank's.
            totals: Sizes of the mini-batch over all ranks.
            old: log π_old of each sample's tokens; None where it is the policy as it is in this very pass.
            sums: Where the figures go.
            temperature: At which the responses were sampled.
        """
        config, loss_value = self.config, 0.0
        for index in self._micro_batches([s.row for s in samples]):
            part = [samples[i] for i in index]
            rows = [s.row for s in part]
            out = self.model.token_logprobs(
                rows, temperature=temperature, entropy_gradient=config.entropy_coefficient > 0.0
            )
            now = out.logprobs.detach()
            given = [old[i] for i in index]
            before = _pad(
                [
                    row[mask] if before is None else before
                    for row, mask, before in zip(now, out.mask, given, strict=True)
                ],
                out.mask,
            )
            sampled = _pad([_tensor(s.rollout_logprobs) for s in part], out.mask)
            weights = importance_weights(config.importance, before, rollout_logprobs=sampled, mask=out.mask)
            batch = LossBatch(
                old_logprobs=before,
                advantages=torch.tensor([s.advantage for s in part], device=out.logprobs.device),
                mask=out.mask,
                weights=weights,
                num_sequences=totals.sequences,
                num_tokens=totals.tokens,
            )
            loss, stats = POLICY_LOSSES.of(config.loss)(out.logprobs, batch, config.loss)
            if self._kl.config.in_loss:
                with torch.no_grad():
                    ref = self.model.token_logprobs(
                        rows, temperature=temperature, reference=self._kl.reference
                    ).logprobs
                kl = self._kl.mean(out.logprobs, ref, out.mask, num_tokens=totals.tokens)
                sums.add_pushes(loss, self._kl.coefficient * kl, out.logprobs)
                loss = loss + self._kl.coefficient * kl
                sums.kl_loss += float(kl.detach())
            entropy = torch.where(out.mask, out.entropy, 0.0).sum()
            if config.entropy_coefficient > 0.0:
                loss = loss - config.entropy_coefficient * entropy / totals.tokens
            self.backend.backward(loss)
            loss_value += float(loss.detach())
            sums.add_loss(stats)
            sums.entropy += float(entropy.detach()) / totals.tokens
            stale = torch.tensor([s.is_stale for s in part], device=now.device)[:, None]
            sums.add_mismatch(torch.where(stale, now, before), sampled, out.mask, num_tokens=totals.tokens)
            if weights is not None and config.importance is not None:
                sums.add_weights(weights, out.mask, config.importance, num_tokens=totals.tokens)
        sums.results.append(self.backend.clip_and_step(loss_value))

    @torch.no_grad()
    def _kl_sums(self, rows: Sequence[SequenceRow], *, temperature: float) -> Float32:
        """[R] estimated KL to the reference of the policy as it is, summed over each response's tokens."""
        own = own_share(rows, self.collective)
        mine = np.zeros(len(own), dtype=np.float32)
        for index in self._micro_batches(own):
            part = [own[i] for i in index]
            out = self.model.token_logprobs(part, temperature=temperature)
            ref = self.model.token_logprobs(
                part, temperature=temperature, reference=self._kl.reference
            ).logprobs
            mine[index] = self._kl.sums(out.logprobs, ref, out.mask)
        sums = np.zeros(len(rows), dtype=np.float32)
        for rank, values in enumerate(self.collective.gather(mine)):
            sums[rank :: self.collective.size] = values
        return sums

    # -- cross-entropy on the teacher's text ----------------------------------------------------------

    def fit(self, prompts: PromptBatch) -> TrainStats:
        """One optimiser step of cross-entropy on the teacher's responses (SeqKD), at temperature 1: text is fitted."""
        started = time.perf_counter()
        rows = [teacher_row(self.model.chat, example, end_of_turn=True) for example in prompts.examples]
        num_tokens = sum(row.num_response_tokens for row in rows)
        own = own_share(rows, self.collective)
        total = 0.0
        for index in self._micro_batches(own):
            loss = -self.model.token_logprobs([own[i] for i in index]).logprobs.sum() / num_tokens
            self.backend.backward(loss)
            total += float(loss.detach())
        result = self.backend.clip_and_step(total)
        share = torch.tensor([total], dtype=torch.float64)
        self.collective.add_up([share])
        self.version += 1
        metrics = {
            "actor/ce_loss": float(share),
            "actor/grad_norm": result.grad_norm,
            "actor/grad_norm_before_clip": result.grad_norm_before_clip,
            "actor/lr": result.lr,
        }
        return self._stats(metrics, [result], started, tokens=sum(len(row) for row in rows))

    def teacher_nll(self, examples: Sequence[Example]) -> Float32:
        """[N] mean negative log-likelihood (nats a token) of each teacher's text; see :meth:`PolicyModel.teacher_nll`."""
        return self.model.teacher_nll(examples, micro_batch_tokens=self.config.pass_tokens)

    # -- weights and state ------------------------------------------------------------------------------

    def snapshot(self, *, dtype: str, probe: SequenceRow, perturbation: float = 0.0) -> WeightsSnapshot:
        """The weights as a rollout worker takes them, with the probe's log-probabilities under them.

        Of a policy with adapters these alone: the worker has the rest. What is perturbed comes whole.

        Args:
            dtype: ``float32`` or ``bfloat16``: the engine's precision.
            probe: The fixed text by which the engine shows that it has taken the weights.
            perturbation: Relative size of a change made to every tensor of the snapshot, not of the model:
                for a test that an engine really takes every kind of tensor.
        """
        weights = self._full_weights(TORCH_DTYPES[dtype])
        if perturbation > 0.0:
            weights = perturbed(weights, perturbation)
        adapters = None
        if perturbation == 0.0 and self.config.model.lora is not None:
            adapters = self.backend.adapters(self.model.lm)
        return WeightsSnapshot(
            version=self.version,
            dtype=dtype,
            tensors=arrays_of(weights if adapters is None else adapters.tensors()),
            adapter_scale=None if adapters is None else adapters.scale,
            probe_ids=probe.ids,
            probe_start=probe.start,
            probe_logprobs=self._shadow.logprobs(weights, probe),
        )

    def export(self, out_dir: Path, *, dtype: torch.dtype) -> None:
        """Write a Hugging Face directory that transformers and vLLM load."""
        lm = cast(Any, self.model.lm)
        export_hf(lm, self.model.chat, out_dir, dtype, state=self._full_weights(dtype))

    def take_settings(self, config: PolicyConfig) -> None:
        """Take over what may change while a run goes: the KL coefficient, unless it adapts itself."""
        self._kl.take_coefficient(config.kl)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training needs to go on, for a checkpoint."""
        tensors, plain = self.backend.state()
        reference, kl = self._kl.state()
        return tensors | reference, {**plain, **kl, "version": self.version, "in_game": self._in_game}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        if plain["in_game"]:
            self.begin_adversarial()
        self._kl.load_state(tensors, plain)
        self.backend.load_state(tensors, plain)
        self.version = int(plain["version"])

    # -- helpers ------------------------------------------------------------------------------------------

    def _full_weights(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return dict(self.backend.full_weights(self.model.lm, dtype))

    def _micro_batches(self, rows: Sequence[SequenceRow]) -> list[NDArray[np.int64]]:
        budget = self.config.pass_tokens
        return plan_passes(rows, max_tokens=budget, packs=self.model.packs)

    @torch.no_grad()
    def _logprobs(self, samples: Sequence[_Sample], *, temperature: float) -> list[Tensor]:
        """log π of every sample's response tokens under the policy as it is."""
        logprobs: list[Tensor] = [torch.zeros(0)] * len(samples)
        for index in self._micro_batches([s.row for s in samples]):
            out = self.model.token_logprobs([samples[i].row for i in index], temperature=temperature)
            for i, values in zip(index, out.logprobs, strict=True):
                logprobs[i] = values[: samples[i].row.num_response_tokens]
        return logprobs

    def _stats(
        self, metrics: Metrics, results: Sequence[StepResult], started: float, *, tokens: int
    ) -> TrainStats:
        skipped = sum(r.skipped for r in results)
        seconds = time.perf_counter() - started
        return TrainStats(
            metrics={**metrics, "perf/train_tokens_per_s": tokens / seconds},
            num_steps=len(results) - skipped,
            num_skipped=skipped,
            seconds=seconds,
        )


def _tensor(values: Float32) -> Tensor:
    """A copy: what comes from the object store cannot be written to, and torch warns of that."""
    return torch.from_numpy(np.array(values))


def _members(batch: TrainBatch) -> list[list[int]]:
    """The responses of each group that are trained on; groups without any are left out."""
    starts = np.flatnonzero(np.diff(batch.group, prepend=-1))
    groups = np.split(np.arange(len(batch)), starts[1:])
    members = [[int(i) for i in group if batch.kept[i]] for group in groups]
    return [group for group in members if group]


def _totals(groups: Sequence[Sequence[_Sample]]) -> Totals:
    rows = [sample.row for group in groups for sample in group]
    return Totals(sequences=len(rows), tokens=sum(row.num_response_tokens for row in rows))


def _pad(rows: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Vectors of response tokens as [batch, seq] beside ``mask``, 0 outside it."""
    padded = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
