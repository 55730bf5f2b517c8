"""The policy on one rank: policy gradient on the critic's score, and cross-entropy on the teacher's text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    ScoreBatch,
    TrainStats,
    WeightsSnapshot,
)
from gad_ray.config.policy import PolicyConfig, PpoLoss, RewardConfig
from gad_ray.core.importance import truncated_weights
from gad_ray.core.kl import k3_kl
from gad_ray.core.packing import plan_micro_batches
from gad_ray.core.policy_loss import PolicyLossStats, gspo_loss, ppo_loss
from gad_ray.learners.collective import Collective, own_share
from gad_ray.learners.experience import advantages_of, rewards_of
from gad_ray.learners.mode import without_dropout
from gad_ray.learners.optim import MasterOptimizer, ParameterGroup, StepResult
from gad_ray.learners.weights import ShadowModel, perturbed, plain_weights
from gad_ray.models.arrays import to_numpy
from gad_ray.models.critic import TORCH_DTYPES
from gad_ray.models.load import export_hf
from gad_ray.models.policy import PolicyModel, SequenceRow, rows_of_rollouts, teacher_row


@dataclass(frozen=True, slots=True)
class _Sample:
    """One response with what its loss needs; tensors of [response tokens]."""

    row: SequenceRow
    advantage: float
    rollout_logprobs: Float32


@dataclass(slots=True)
class _Sums:
    """Shares of means over the global batch, added up over micro-batches and optimiser steps."""

    pg_loss: float = 0.0
    kl_loss: float = 0.0
    entropy: float = 0.0
    clip_fraction: float = 0.0
    mismatch_abs: float = 0.0
    mismatch_kl: float = 0.0
    max_ratio_gap: float = 0.0
    results: list[StepResult] = field(default_factory=list[StepResult])


class PolicyLearner:
    """Holds the student, its optimiser, and the reference of the KL penalty."""

    def __init__(
        self,
        config: PolicyConfig,
        reward: RewardConfig,
        *,
        mini_batch_prompts: int,
        total_steps: int,
        warmup_lr: float | None,
        collective: Collective,
        max_nonfinite_steps: int,
        device: torch.device | None = None,
    ) -> None:
        """Load the student.

        Args:
            config: The policy's settings.
            reward: How scores become rewards.
            mini_batch_prompts: Prompts of one optimiser step over all ranks.
            total_steps: Optimiser steps of the adversarial stage, for the learning-rate schedule.
            warmup_lr: Learning rate of the cross-entropy warm start; the optimiser's when None.
            collective: The ranks that share each batch.
            max_nonfinite_steps: Skipped optimiser steps in a row above which an update raises.
            device: Where to compute; the CPU when None.
        """
        self.config = config
        self.reward = reward
        self.collective = collective
        self.version = 0
        self._mini_batch_prompts = mini_batch_prompts
        self._total_steps = total_steps
        self._max_nonfinite_steps = max_nonfinite_steps
        self.model = PolicyModel.build(config.model).to(device)
        without_dropout(self.model, gradient_checkpointing=config.model.gradient_checkpointing)
        self._shadow = ShadowModel(self.model)
        self._reference: dict[str, Tensor] = {}
        self._in_game = False
        self.optimizer = self._new_optimizer(warmup_lr or config.optimizer.lr)

    # -- the game -----------------------------------------------------------------------------------

    def begin_adversarial(self) -> None:
        """Take the KL reference, and start the game's optimiser afresh: its gradients are of another loss."""
        if self.config.kl.coefficient > 0.0:
            self._reference = {n: p.detach().clone() for n, p in self.model.trainable().items()}
        previous = self.optimizer
        self.optimizer = self._new_optimizer(self.config.optimizer.lr)
        self.optimizer.take_masters(previous)
        self._in_game = True

    def update(self, rollouts: RolloutBatch, scores: ScoreBatch) -> TrainStats:
        """One step of the game.

        Args:
            rollouts: The policy's responses; every rank gets all of them and trains on its share.
            scores: Their scores, in the same order.

        Returns:
            The step's metrics over the whole batch, the same on every rank.
        """
        started = time.perf_counter()
        rewards = rewards_of(rollouts, scores, self.reward)
        advantages = advantages_of(rollouts, rewards, self.config)
        samples = [
            _Sample(row, float(advantage), logprobs)
            for row, advantage, logprobs in zip(
                rows_of_rollouts(rollouts), advantages, rollouts.logprobs, strict=True
            )
        ]
        groups = [samples[start:stop] for start, stop in rollouts.groups()]
        size = self._mini_batch_prompts
        mini_batches = [groups[i : i + size] for i in range(0, len(groups), size)]
        sums = self._train(mini_batches)
        self.version += 1
        metrics: Metrics = {
            **self._loss_metrics(sums, num_steps=len(sums.results)),
            "actor/adv_std": float(advantages.std(correction=0)),
            "actor/adv_max": float(advantages.abs().max()),
        }
        return self._stats(metrics, sums.results, started, tokens=sum(len(s.row) for s in samples))

    def _train(self, mini_batches: Sequence[Sequence[Sequence[_Sample]]]) -> _Sums:
        """All optimiser steps of one batch.

        The first step needs no pass for π_old: it is the policy itself, so that ρ is exactly 1. Later steps
        are over a policy that has moved, and take π_old from a pass made before the first.
        """
        own = [
            [sample for group in own_share(batch, self.collective) for sample in group]
            for batch in mini_batches
        ]
        totals = [_Totals.of(batch) for batch in mini_batches]
        epochs = self.config.epochs_per_step
        old: list[list[Tensor] | None] = [None] * len(own)
        if len(own) * epochs > 1:
            # The first mini-batch's own first pass is its π_old; only further epochs come back to it.
            old = [self._logprobs(b) if i > 0 or epochs > 1 else None for i, b in enumerate(own)]
        sums = _Sums()
        for epoch in range(epochs):
            for i, (batch, total) in enumerate(zip(own, totals, strict=True)):
                on_policy = epoch == 0 and i == 0
                self._step(batch, total, None if on_policy else old[i], sums)
        return sums

    def _step(
        self, samples: Sequence[_Sample], total: _Totals, old: Sequence[Tensor] | None, sums: _Sums
    ) -> None:
        """Accumulate the gradient of one mini-batch over micro-batches, and take the optimiser step."""
        loss_value = 0.0
        beta = self.config.kl.coefficient
        for index in self._micro_batches([s.row for s in samples]):
            part = [samples[i] for i in index]
            out = self.model.token_logprobs([s.row for s in part])
            before = out.logprobs.detach() if old is None else _pad([old[i] for i in index], out.mask)
            sampled = _pad([torch.from_numpy(np.array(s.rollout_logprobs)) for s in part], out.mask)
            weights = None
            if self.config.importance is not None:
                weights = truncated_weights(
                    before, rollout_logprobs=sampled, mask=out.mask, cap=self.config.importance.cap
                )
            advantages = torch.tensor([s.advantage for s in part], device=out.logprobs.device)
            loss, stats = self._policy_loss(out.logprobs, before, advantages, out.mask, weights, total)
            if beta > 0.0:
                with torch.no_grad():
                    ref = self.model.token_logprobs([s.row for s in part], reference=self._reference).logprobs
                kl = k3_kl(out.logprobs, ref_logprobs=ref, mask=out.mask, num_tokens=total.tokens)
                loss = loss + beta * kl
                sums.kl_loss += float(kl.detach())
            loss.backward()
            self.optimizer.accumulate()
            loss_value += float(loss.detach())
            sums.pg_loss += float(stats.pg_loss)
            sums.clip_fraction += float(stats.clip_fraction)
            sums.max_ratio_gap = max(sums.max_ratio_gap, float(stats.max_ratio_gap))
            sums.entropy += float(torch.where(out.mask, out.entropy, 0.0).sum()) / total.tokens
            # The sample is the rollout's: k3 with the trainer in the reference's place estimates KL(rollout‖trainer).
            gap = torch.where(out.mask, before - sampled, 0.0)
            sums.mismatch_abs += float(gap.abs().sum()) / total.tokens
            sums.mismatch_kl += float(
                k3_kl(sampled, ref_logprobs=before, mask=out.mask, num_tokens=total.tokens)
            )
        sums.results.append(self.optimizer.step(loss_value))

    def _policy_loss(
        self,
        logprobs: Tensor,
        old: Tensor,
        advantages: Tensor,
        mask: Tensor,
        weights: Tensor | None,
        total: _Totals,
    ) -> tuple[Tensor, PolicyLossStats]:
        loss = self.config.loss
        if isinstance(loss, PpoLoss):
            return ppo_loss(
                logprobs,
                old_logprobs=old,
                advantages=advantages,
                mask=mask,
                clip_low=loss.clip_low,
                clip_high=loss.clip_high,
                num_tokens=total.tokens,
                weights=weights,
            )
        return gspo_loss(
            logprobs,
            old_logprobs=old,
            advantages=advantages,
            mask=mask,
            clip_low=loss.clip_low,
            clip_high=loss.clip_high,
            num_sequences=total.sequences,
            weights=weights,
        )

    def _loss_metrics(self, sums: _Sums, *, num_steps: int) -> Metrics:
        names = ("pg_loss", "kl_loss", "entropy", "clip_fraction", "mismatch_abs", "mismatch_kl")
        shares = torch.tensor([getattr(sums, name) for name in names], dtype=torch.float64)
        self.collective.add_up([shares])
        pg_loss, kl_loss, entropy, clip_fraction, mismatch_abs, mismatch_kl = (shares / num_steps).tolist()
        gap = max(
            float(g[0]) for g in self.collective.gather(np.asarray([sums.max_ratio_gap], dtype=np.float32))
        )
        penalty = self.config.kl.coefficient * kl_loss
        last = sums.results[-1]
        return {
            "actor/pg_loss": pg_loss,
            "actor/kl_loss": kl_loss,
            "actor/kl_share": penalty / (abs(pg_loss) + penalty) if penalty > 0.0 else 0.0,
            "actor/entropy": entropy,
            "actor/clipfrac": clip_fraction,
            "actor/ratio_gap_max": gap,
            "actor/grad_norm": last.grad_norm,
            "actor/grad_norm_before_clip": last.grad_norm_before_clip,
            "actor/lr": last.lr,
            "rollout/mismatch_abs": mismatch_abs,
            "rollout/mismatch_kl": mismatch_kl,
        }

    # -- cross-entropy on the teacher's text ----------------------------------------------------------

    def fit(self, prompts: PromptBatch) -> TrainStats:
        """One optimiser step of cross-entropy on the teacher's responses (SeqKD)."""
        started = time.perf_counter()
        rows = [teacher_row(self.model.chat, example, end_of_turn=True) for example in prompts.examples]
        num_tokens = sum(row.num_response_tokens for row in rows)
        own = own_share(rows, self.collective)
        total = 0.0
        for index in self._micro_batches(own):
            loss = -self.model.token_logprobs([own[i] for i in index]).logprobs.sum() / num_tokens
            loss.backward()
            self.optimizer.accumulate()
            total += float(loss.detach())
        result = self.optimizer.step(total)
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

    @torch.no_grad()
    def teacher_nll(self, examples: Sequence[Example]) -> Float32:
        """[N] mean negative log-likelihood (nats a token) of each teacher's text, end of turn left out."""
        rows = [teacher_row(self.model.chat, example, end_of_turn=False) for example in examples]
        nll = np.zeros(len(rows), dtype=np.float32)
        for index in self._micro_batches(rows):
            out = self.model.token_logprobs([rows[i] for i in index])
            nll[index] = (-out.logprobs.sum(-1) / out.mask.sum(-1)).cpu().numpy()
        return nll

    # -- weights and state ------------------------------------------------------------------------------

    def snapshot(self, *, dtype: str, probe: SequenceRow, perturbation: float = 0.0) -> WeightsSnapshot:
        """The weights as a rollout engine takes them, with the probe's log-probabilities under them.

        Args:
            dtype: ``float32`` or ``bfloat16``: the engine's precision.
            probe: The fixed text by which the engine shows that it has taken the weights.
            perturbation: Relative size of a change made to every tensor of the snapshot, not of the model:
                for a test that an engine really takes every kind of tensor.
        """
        weights = plain_weights(self.model, self.optimizer, TORCH_DTYPES[dtype])
        if perturbation > 0.0:
            weights = perturbed(weights, perturbation)
        return WeightsSnapshot(
            version=self.version,
            dtype=dtype,
            tensors={name: to_numpy(t) for name, t in weights.items()},
            probe_logprobs=self._shadow.logprobs(weights, probe),
        )

    def export(self, out_dir: Path, *, dtype: torch.dtype) -> None:
        """Write a Hugging Face directory that transformers and vLLM load."""
        weights = plain_weights(self.model, self.optimizer, dtype)
        export_hf(cast(Any, self.model.lm), self.model.chat, out_dir, dtype, state=weights)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training needs to go on, for a checkpoint."""
        tensors, plain = self.optimizer.state()
        tensors |= {f"reference/{name}": t for name, t in self._reference.items()}
        return tensors, {**plain, "version": self.version, "in_game": self._in_game}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        if plain["in_game"]:
            self.begin_adversarial()
        self._reference = {
            name.removeprefix("reference/"): t.clone()
            for name, t in tensors.items()
            if name.startswith("reference/")
        }
        self.optimizer.load_state(tensors, plain)
        self.version = int(plain["version"])

    # -- helpers ------------------------------------------------------------------------------------------

    def _new_optimizer(self, lr: float) -> MasterOptimizer:
        return MasterOptimizer(
            [ParameterGroup(parameters=self.model.trainable(), lr=lr)],
            self.config.optimizer,
            master_dtype=TORCH_DTYPES[self.config.model.master],
            total_steps=self._total_steps,
            collective=self.collective,
            max_nonfinite_steps=self._max_nonfinite_steps,
        )

    def _micro_batches(self, rows: Sequence[SequenceRow]) -> list[NDArray[np.int64]]:
        return plan_micro_batches([len(row) for row in rows], max_tokens=self.config.micro_batch_tokens)

    @torch.no_grad()
    def _logprobs(self, samples: Sequence[_Sample]) -> list[Tensor]:
        """log π of every sample's response tokens under the policy as it is."""
        logprobs: list[Tensor] = [torch.zeros(0)] * len(samples)
        for index in self._micro_batches([s.row for s in samples]):
            out = self.model.token_logprobs([samples[i].row for i in index])
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


@dataclass(frozen=True, slots=True)
class _Totals:
    """Sizes of a mini-batch over all ranks: the denominators of every mean."""

    sequences: int
    tokens: int

    @classmethod
    def of(cls, groups: Sequence[Sequence[_Sample]]) -> _Totals:
        rows = [sample.row for group in groups for sample in group]
        return cls(sequences=len(rows), tokens=sum(row.num_response_tokens for row in rows))


def _pad(rows: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Vectors of response tokens as [batch, seq] beside ``mask``, 0 outside it."""
    padded = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
