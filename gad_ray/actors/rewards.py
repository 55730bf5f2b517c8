"""The reward actor: rewards and advantages of every step, and their records."""

from __future__ import annotations

import os
from pathlib import Path

import ray

from gad_ray.actors.process import redirect_output
from gad_ray.actors.rollouts import Rollouts
from gad_ray.batch import (
    Float32,
    FormatBatch,
    PromptBatch,
    PromptFigures,
    RewardBatch,
    RolloutBatch,
    ScoreBatch,
    TrainBatch,
)
from gad_ray.config.run import RunConfig
from gad_ray.observability.records import ScoreRecordWriter
from gad_ray.rewards.stage import RewardReport, RewardStage, prompt_figures


class RewardActor:
    """A :class:`RewardStage` in a process of its own, without torch."""

    def __init__(self, config: RunConfig, log_path: str, records: str) -> None:
        redirect_output(Path(log_path))
        self._config = config
        self._records = Path(records)
        self._stage = RewardStage(config)

    @ray.method
    def setup(self) -> int:
        """The process id."""
        return os.getpid()

    @ray.method
    def gather(self, rollouts: Rollouts) -> RolloutBatch:
        """Join the parts of a step's responses, for everybody."""
        return rollouts.join()

    @ray.method
    def format(self, prompts: PromptBatch, rollouts: Rollouts) -> FormatBatch:
        """Values of the format terms; the critic may score meanwhile."""
        return self._stage.format(prompts, rollouts.join())

    @ray.method(num_returns=3)
    def reward(
        self,
        prompts: PromptBatch,
        rollouts: Rollouts,
        scores: ScoreBatch,
        form: tuple[ray.ObjectRef[FormatBatch], ...],
        penalty: Float32 | None,
    ) -> tuple[RewardBatch, TrainBatch, RewardReport]:
        """Rewards, what the policy is trained on, and what the controller is told of them."""
        joined = rollouts.join()
        rewards = self._stage.rewards(joined, scores, FormatBatch.concat(ray.get(list(form))))
        batch = self._stage.train_batch(prompts, joined, rewards, penalty=penalty)
        return rewards, batch, self._stage.report(joined, scores, rewards)

    @ray.method
    def spread(self, rollouts: Rollouts, scores: ScoreBatch, form: FormatBatch) -> PromptFigures:
        """Which prompts' responses differ in their rewards."""
        joined = rollouts.join()
        return prompt_figures(joined, scores, self._stage.rewards(joined, scores, form))

    @ray.method
    def record(
        self, step: int, prompts: PromptBatch, rollouts: Rollouts, scores: ScoreBatch, rewards: RewardBatch
    ) -> None:
        """Write the score records of one step."""
        writer = ScoreRecordWriter(self._records, max_rows_per_step=self._config.records.max_rows_per_step)
        writer.write(step, prompts, rollouts.join(), scores, rewards)
