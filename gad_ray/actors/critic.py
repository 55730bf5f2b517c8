"""One rank of the critic group."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import ray

from gad_ray.actors.learner import LearnerActor
from gad_ray.actors.rollouts import Rollouts
from gad_ray.batch import (
    PromptBatch,
    PublishedCritic,
    RolloutBatch,
    ScoreBatch,
    TrainStats,
    merge_metrics,
)
from gad_ray.config.run import RunConfig
from gad_ray.critics.base import Critic
from gad_ray.critics.frozen import FrozenCriticLearner
from gad_ray.critics.store import FINGERPRINT_FILE, open_critic
from gad_ray.evaluation.scoring import score_texts
from gad_ray.learners.critic import CriticLearner
from gad_ray.machine import returning_memory
from gad_ray.models.critic_state import frame_of
from gad_ray.observability.files import write_text


class CriticActor(LearnerActor):
    """A :class:`CriticLearner` in a process of its own."""

    def __init__(self, config: RunConfig, rank: int, log_path: str) -> None:
        super().__init__(config.critic.group, rank, log_path, config.limits.update_s)
        self._config = config
        self._learner: CriticLearner | FrozenCriticLearner | None = None
        self._frame: dict[str, bytes] = {}

    @ray.method
    def setup(self, address: str, total_steps: int) -> int:
        """Join the group and load the model; returns the process id."""
        device = self.join(address)
        if self._config.critic.frozen is not None:
            self._learner = FrozenCriticLearner(self._config.critic, collective=self._collective)
            return os.getpid()
        self._learner = CriticLearner(
            self._config.critic,
            seed=self._config.seed,
            total_steps=total_steps,
            collective=self._collective,
            max_nonfinite_steps=self._config.limits.max_nonfinite_steps,
            device=device,
        )
        return os.getpid()

    @property
    def learner(self) -> CriticLearner | FrozenCriticLearner:
        """The learner; :meth:`setup` comes first."""
        assert self._learner is not None, "setup() comes first"
        return self._learner

    def write(self, directory: Path) -> None:
        """Write the learner's state, and the fingerprint by which scores can be told to be of this critic."""
        super().write(directory)
        parts = dataclasses.asdict(self.learner.fingerprint())
        write_text(directory / FINGERPRINT_FILE, json.dumps(parts, indent=1) + "\n")

    @ray.method(num_returns=2)
    def score_and_update(
        self, recorded: bool, prompts: PromptBatch, rollouts: Rollouts
    ) -> tuple[ScoreBatch, TrainStats]:
        """Score the step's samples and learn from them.

        Args:
            recorded: The step is recorded: stamp the scores with the fingerprint of the critic that gave them, and keep
                some tokens' values.
            prompts: The step's prompts.
            rollouts: The responses to them.
        """
        started = time.perf_counter()
        fingerprint = self.learner.fingerprint() if recorded else None
        fingerprint_s = time.perf_counter() - started
        num_watched = self._config.records.token_values if recorded else 0
        with returning_memory():
            scores, stats = self.learner.score_and_update(prompts, rollouts.join(), num_watched=num_watched)
        if fingerprint is not None:
            told = {"critic/fingerprint": float(fingerprint.number)}
            metrics = merge_metrics(stats.metrics, told)
            stats = dataclasses.replace(stats, metrics=metrics, seconds=stats.seconds + fingerprint_s)
        return dataclasses.replace(scores, fingerprint=fingerprint), stats

    def follow(self, config: RunConfig) -> None:
        """See :meth:`CriticLearner.take_settings`."""
        self.learner.take_settings(config.critic)

    @ray.method(num_returns=2)
    def score_batch(self, prompts: PromptBatch, rollouts: Rollouts) -> tuple[ScoreBatch, int]:
        """Score samples without learning from them; the second value is their number."""
        with returning_memory():
            scores = self.learner.score_batch(prompts, rollouts.join())
        return scores, len(scores)

    @ray.method
    def publish(self) -> PublishedCritic:
        """Put the critic into the object store, for whoever serves it; the reference comes with the news of it.

        Raises:
            ModelError: If a weight is not finite.
        """
        started, learner = time.perf_counter(), self.learner
        assert isinstance(learner, CriticLearner), "serve.enabled goes without critic.frozen"
        if not self._frame:
            self._frame = frame_of(learner.model)
        state = learner.published(self._frame)
        reference = ray.put(state)
        return PublishedCritic(
            fingerprint=state.fingerprint.digest,
            step=state.step,
            seconds=time.perf_counter() - started,
            num_bytes=state.num_bytes,
            state=reference,
        )

    @ray.method
    def export(self, directory: str) -> str:
        """Write a directory that scores without the run; returns the fingerprint."""
        return self.learner.export(Path(directory)).digest

    @ray.method
    def score_fixed(
        self, exported: str | None, prompts: PromptBatch, answers: tuple[RolloutBatch, ...]
    ) -> list[ScoreBatch]:
        """Score answers to the held-out prompts, all in one call: the teacher's text is scored once.

        Args:
            exported: Directory of an exported critic; None for the one in training, whose fingerprint is taken.
            prompts: The held-out prompts.
            answers: The answers of one or more policies.
        """
        texts = [list(zip(batch.example_ids, batch.texts, strict=True)) for batch in answers]
        with returning_memory():
            scored = score_texts(self._critic(exported), prompts, texts)
        fingerprint = self.learner.fingerprint() if exported is None else None
        return [dataclasses.replace(scores, fingerprint=fingerprint) for scores in scored]

    def _critic(self, exported: str | None) -> Critic:
        if exported is None:
            return self.learner
        return open_critic(exported, micro_batch_tokens=self._config.critic.pass_tokens)
