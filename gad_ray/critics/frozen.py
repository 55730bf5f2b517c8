"""A critic that does not learn, where the game has its critic."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gad_ray.batch import Fingerprint, Float32, PromptBatch, RolloutBatch, ScoreBatch, TrainStats
from gad_ray.config.critic import CriticConfig
from gad_ray.critics.base import CRITICS
from gad_ray.errors import ConfigError, TrainingError
from gad_ray.learners.collective import Collective, shared_out
from gad_ray.learners.critic_metrics import critic_metrics
from gad_ray.models.pairs import Pair, deduplicate


class FrozenCriticLearner:
    """Scores as :class:`gad_ray.learners.critic.CriticLearner` does, by a critic that stays as it is."""

    where = "training"

    def __init__(self, config: CriticConfig, *, collective: Collective) -> None:
        """Open the critic.

        Args:
            config: The critic's settings, with ``frozen``.
            collective: The ranks that share each batch.

        Raises:
            GadError: If it cannot be opened.
        """
        assert config.frozen is not None, "a FrozenCriticLearner is made for critic.frozen"
        self.config = config
        self._collective = collective
        self._critic = CRITICS.of(config.frozen)(config.frozen)

    @property
    def step(self) -> int:
        """Optimiser steps that the critic had taken."""
        return self._critic.step

    def score_and_update(
        self, prompts: PromptBatch, rollouts: RolloutBatch, *, num_watched: int = 0
    ) -> tuple[ScoreBatch, TrainStats]:
        """Score the step's samples; there is nothing to update.

        Args:
            prompts: The step's prompts with the teacher's text.
            rollouts: The policy's responses to them.
            num_watched: Not used: values of single tokens are a value head's.
        """
        del num_watched
        started = time.perf_counter()
        batch = self.score_batch(prompts, rollouts)
        seconds = time.perf_counter() - started
        metrics = critic_metrics(batch, rollouts, losses=None, config=self.config)
        return batch, TrainStats(metrics={**metrics, "timing_s/score": seconds}, num_steps=0, seconds=seconds)

    def score_batch(self, prompts: PromptBatch, rollouts: RolloutBatch) -> ScoreBatch:
        """Score the step's samples, in the order of ``rollouts``; each rank asks for its share.

        Raises:
            TrainingError: If a score is not finite.
        """
        examples = {example.id: example for example in prompts.examples}
        owners = [examples[example_id] for example_id in rollouts.example_ids]
        sides = [Pair(owner.messages, owner.teacher_response) for owner in owners]
        sides += [Pair(owner.messages, text) for owner, text in zip(owners, rollouts.texts, strict=True)]
        distinct, index = deduplicate(sides)
        scores = shared_out(distinct, self._collective, self.score)[index]
        if not np.isfinite(scores).all():
            raise TrainingError(
                f"{int((~np.isfinite(scores)).sum())} scores of {self._critic.where} are not finite",
                hint="take another critic: there is no reward to be made of them",
            )
        teacher, student = np.split(scores, 2)
        return ScoreBatch(teacher=teacher, student=student, critic_version=self.step)

    def take_settings(self, config: CriticConfig) -> None:
        """Nothing of it changes while a run goes."""
        del config

    def score(self, pairs: Sequence[Pair]) -> Float32:
        """[N] float32 scores of pairs of text."""
        return self._critic.score(pairs)

    def fingerprint(self) -> Fingerprint:
        """Digest of everything that a score depends on."""
        return self._critic.fingerprint()

    def export(self, out_dir: Path) -> Fingerprint:
        """Write a directory from which the critic is opened again."""
        return self._critic.export(out_dir)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Which critic it is, for a checkpoint."""
        return {}, {"fingerprint": asdict(self.fingerprint())}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Check that it is the critic that the run began with.

        Raises:
            ConfigError: If it is another by now.
        """
        del tensors
        differing = self.fingerprint().differing(Fingerprint(**plain["fingerprint"]))
        if differing:
            raise ConfigError(
                f"another critic than the run began with: its {' and '.join(differing)} have changed",
                where="critic.frozen",
                hint="give the critic that the run began with, or begin a new run",
            )
