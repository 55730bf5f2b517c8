"""What the policy reports about the optimiser steps of one update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from gad_ray.batch import Metrics
from gad_ray.config.policy import ImportanceConfig, RejectedImportance, TruncatedImportance
from gad_ray.core.kl import k3_kl
from gad_ray.core.policy_loss import PolicyLossStats
from gad_ray.learners.collective import Collective
from gad_ray.learners.kl_penalty import KlPenalty
from gad_ray.learners.optim import StepResult

_SHARES = (
    "pg_loss",
    "kl_loss",
    "entropy",
    "clip_fraction",
    "mismatch_abs",
    "mismatch_kl",
    "weight_mean",
    "weight_clipped",
    "pg_push",
    "kl_push",
)


@dataclass(slots=True)
class PolicySums:
    """Shares of means over the global batch, added up over micro-batches and optimiser steps."""

    pg_loss: float = 0.0
    kl_loss: float = 0.0
    entropy: float = 0.0
    clip_fraction: float = 0.0
    mismatch_abs: float = 0.0
    mismatch_kl: float = 0.0
    weight_mean: float = 0.0
    weight_clipped: float = 0.0
    pg_push: float = 0.0
    kl_push: float = 0.0
    num_rejected: int = 0
    max_ratio_gap: float = 0.0
    results: list[StepResult] = field(default_factory=list[StepResult])

    def add_loss(self, stats: PolicyLossStats) -> None:
        """Add the figures of the loss of one micro-batch."""
        self.pg_loss += float(stats.pg_loss)
        self.clip_fraction += float(stats.clip_fraction)
        self.max_ratio_gap = max(self.max_ratio_gap, float(stats.max_ratio_gap))

    def add_pushes(self, pg_loss: Tensor, kl_term: Tensor, logprobs: Tensor) -> None:
        """Add how hard both terms of the loss push the log-probabilities: Σ |∂term/∂log π| of one micro-batch.

        The terms' values do not tell: that of the policy gradient is near 0 on fresh samples, whatever drives it.
        Nothing goes through the model for this.
        """
        self.pg_push += _push(pg_loss, logprobs)
        self.kl_push += _push(kl_term, logprobs)

    def add_mismatch(self, old: Tensor, sampled: Tensor, mask: Tensor, *, num_tokens: int) -> None:
        """Add the gap between the trainer's and the rollout's log-probabilities of one micro-batch."""
        gap = torch.where(mask, old - sampled, 0.0)
        self.mismatch_abs += float(gap.abs().sum()) / num_tokens
        # The sample is the rollout's: k3 with the trainer in the reference's place estimates KL(rollout‖trainer).
        self.mismatch_kl += float(k3_kl(sampled, ref_logprobs=old, mask=mask, num_tokens=num_tokens))

    def add_weights(
        self, weights: Tensor, mask: Tensor, config: ImportanceConfig, *, num_tokens: int
    ) -> None:
        """Add the importance weights of one micro-batch."""
        weights = weights[mask]
        self.weight_mean += float(weights.sum()) / num_tokens
        match config:
            case TruncatedImportance(cap=cap):
                clipped = int((weights >= cap).sum())
            case RejectedImportance():
                clipped = int((weights == 0.0).sum())
                self.num_rejected += clipped
            case _:
                assert_never(config)
        self.weight_clipped += clipped / num_tokens

    def metrics(
        self, collective: Collective, *, kl: KlPenalty, importance: ImportanceConfig | None
    ) -> Metrics:
        """The figures over all ranks; empty if there was no optimiser step.

        Args:
            collective: The ranks that share the batch.
            kl: The penalty, with the coefficient that the step was made with.
            importance: The correction for the rollout's probabilities.
        """
        if not self.results:
            return {}
        sums = [getattr(self, name) for name in _SHARES] + [float(self.num_rejected)]
        totals = torch.tensor(sums, dtype=torch.float64)
        collective.add_up([totals])
        mean = dict(zip(_SHARES, (totals / len(self.results)).tolist(), strict=False))
        gap = max(float(g[0]) for g in collective.gather(np.asarray([self.max_ratio_gap], dtype=np.float32)))
        pushes = mean["pg_push"] + mean["kl_push"]
        last = self.results[-1]
        metrics: Metrics = {
            "actor/pg_loss": mean["pg_loss"],
            "actor/kl_loss": mean["kl_loss"],
            "actor/kl_coef": kl.coefficient,
            "actor/kl_share": mean["kl_push"] / pushes if pushes > 0.0 else 0.0,
            "actor/entropy": mean["entropy"],
            "actor/clipfrac": mean["clip_fraction"],
            "actor/ratio_gap_max": gap,
            "actor/grad_norm": last.grad_norm,
            "actor/grad_norm_before_clip": last.grad_norm_before_clip,
            "actor/lr": last.lr,
            "rollout/mismatch_abs": mean["mismatch_abs"],
            "rollout/mismatch_kl": mean["mismatch_kl"],
        }
        if importance is not None:
            metrics["actor/importance_weight_mean"] = mean["weight_mean"]
            metrics["actor/importance_clipfrac"] = mean["weight_clipped"]
            if isinstance(importance, RejectedImportance):
                metrics["actor/importance_rejected_tokens"] = float(totals[-1])
        return metrics


def _push(term: Tensor, logprobs: Tensor) -> float:
    (gradient,) = torch.autograd.grad(term, logprobs, retain_graph=True)
    return float(gradient.abs().sum())
