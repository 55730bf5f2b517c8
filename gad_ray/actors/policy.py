"""One rank of the policy group."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import ray

from gad_ray.actors.learner import LearnerActor
from gad_ray.actors.rollouts import Rollouts
from gad_ray.batch import Float32, PromptBatch, TrainBatch, TrainStats, WeightsReceipt, WeightsSnapshot
from gad_ray.config.run import RunConfig
from gad_ray.learners.policy import PolicyLearner
from gad_ray.machine import returning_memory
from gad_ray.models.load import TORCH_DTYPES
from gad_ray.rollout.worker import probe_row


class PolicyActor(LearnerActor):
    """A :class:`PolicyLearner` in a process of its own."""

    def __init__(self, config: RunConfig, rank: int, log_path: str) -> None:
        super().__init__(config.policy.group, rank, log_path, config.limits.update_s)
        self._config = config
        self._learner: PolicyLearner | None = None

    @ray.method
    def setup(self, address: str, total_steps: int, fit_steps: int) -> int:
        """Join the group and load the model; returns the process id."""
        device = self.join(address)
        self._learner = PolicyLearner(
            self._config.policy,
            mini_batch_prompts=self._config.mini_batch_prompts,
            total_steps=total_steps,
            fit_steps=fit_steps,
            warmup_lr=self._config.stages.warmup.policy_lr,
            collective=self._collective,
            max_nonfinite_steps=self._config.limits.max_nonfinite_steps,
            device=device,
        )
        return os.getpid()

    @property
    def learner(self) -> PolicyLearner:
        """The learner; :meth:`setup` comes first."""
        assert self._learner is not None, "setup() comes first"
        return self._learner

    @ray.method
    def fit(self, prompts: PromptBatch) -> TrainStats:
        """One step of cross-entropy on the teacher's text."""
        with returning_memory():
            return self.learner.fit(prompts)

    @ray.method
    def begin_adversarial(self) -> None:
        """Take the KL reference and a fresh optimiser."""
        self.learner.begin_adversarial()

    @ray.method
    def kl_penalty(self, rollouts: Rollouts) -> Float32:
        """[R] what the KL term takes from each response's reward; every rank computes its share."""
        with returning_memory():
            return self.learner.kl_penalty(rollouts.join())

    @ray.method
    def update(self, batch: TrainBatch) -> TrainStats:
        """One step of the game."""
        with returning_memory():
            return self.learner.update(batch)

    def follow(self, config: RunConfig) -> None:
        """See :meth:`PolicyLearner.take_settings`."""
        self.learner.take_settings(config.policy)

    @ray.method(num_returns=2)
    def snapshot(self, perturbation: float) -> tuple[WeightsSnapshot, WeightsReceipt]:
        """The weights for the rollout engines, and what the controller is told of them."""
        probe = probe_row(self.learner.model.chat)
        weights = self.learner.snapshot(
            dtype=self._config.rollout.dtype, probe=probe, perturbation=perturbation
        )
        return weights, WeightsReceipt(version=weights.version, num_bytes=weights.num_bytes)

    @ray.method
    def teacher_nll(self, prompts: PromptBatch) -> Float32:
        """[N] negative log-likelihood of each teacher's text, nats a token."""
        with returning_memory():
            return np.array(self.learner.teacher_nll(prompts.examples))

    @ray.method
    def export(self, directory: str) -> None:
        """Write the policy as a Hugging Face directory."""
        self.learner.export(Path(directory), dtype=TORCH_DTYPES[self._config.policy.model.dtype])
