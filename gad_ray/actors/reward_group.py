"""The reward stage as the controller sees it: one actor, whatever the number of ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import ray
from ray import ObjectRef

from gad_ray.actors.group import ActorGroup, three
from gad_ray.actors.process import runtime_env
from gad_ray.actors.rewards import RewardActor
from gad_ray.actors.rollouts import Rollouts
from gad_ray.actors.waiting import Waiter
from gad_ray.batch import (
    Float32,
    FormatBatch,
    PromptBatch,
    PromptFigures,
    RewardBatch,
    ScoreBatch,
    TrainBatch,
)
from gad_ray.config.run import RunConfig
from gad_ray.rewards.stage import RewardReport

FormatRefs = tuple[ObjectRef[FormatBatch], ...]


@dataclass(frozen=True, slots=True)
class PendingRewards:
    """A step's rewards on their way.

    Attributes:
        rewards: What is logged and recorded.
        batch: What the policy is trained on, of the same rewards.
        report: What the controller is told of them.
    """

    rewards: ObjectRef[RewardBatch]
    batch: ObjectRef[TrainBatch]
    report: ObjectRef[RewardReport]


class RewardGroup(ActorGroup[RewardActor]):
    """The actor that computes each response's reward, once."""

    def __init__(self, config: RunConfig, waiter: Waiter) -> None:
        super().__init__("rewards", waiter)
        self._config = config

    def place(self, log_of: dict[str, str], *, records: str) -> None:
        """Start the process. It reserves nothing: it works while others wait for it."""
        actor = ray.remote(RewardActor).options(
            num_cpus=0, runtime_env=runtime_env(threads=1), max_restarts=0
        )
        self.add(actor.remote(self._config, log_of["rewards-0"], records))

    def setup(self) -> list[ObjectRef[int]]:
        """Have user's functions imported; gives the process id."""
        return self.each(lambda actor: actor.setup.remote())

    def gather(self, rollouts: Rollouts) -> Rollouts:
        """The same as one part: joined once, where every rank would join what every worker has drawn."""
        if len(rollouts.parts) == 1:
            return rollouts
        return Rollouts((self.rank_0.gather.remote(rollouts),))

    def format(self, prompts: ObjectRef[PromptBatch], rollouts: Rollouts) -> ObjectRef[FormatBatch]:
        """Have the format terms asked about these responses; nothing is waited for."""
        return self.rank_0.format.remote(prompts, rollouts)

    def reward(
        self,
        prompts: ObjectRef[PromptBatch],
        rollouts: Rollouts,
        scores: ObjectRef[ScoreBatch],
        form: FormatRefs,
        *,
        penalty: ObjectRef[Float32] | None = None,
    ) -> PendingRewards:
        """Rewards and advantages of a step, once its scores are there."""
        refs = three(self.rank_0.reward.remote(prompts, rollouts, scores, form, cast("Any", penalty)))
        return PendingRewards(*refs)

    def finish(self, pending: PendingRewards, *, step: int) -> RewardReport:
        """Wait for a step's rewards."""
        what = f"the rewards of step {step}"
        return self.wait([pending.report], what=what, deadline_s=self._config.limits.score_s)[0]

    def spread(
        self, rollouts: Rollouts, scores: ObjectRef[ScoreBatch], form: ObjectRef[FormatBatch], *, step: int
    ) -> PromptFigures:
        """Which prompts' responses differ in their rewards."""
        call = self.rank_0.spread.remote(rollouts, scores, form)
        what = f"the spread of step {step}'s groups"
        return self.wait([call], what=what, deadline_s=self._config.limits.score_s)[0]

    def record(
        self,
        step: int,
        prompts: ObjectRef[PromptBatch],
        rollouts: Rollouts,
        scores: ObjectRef[ScoreBatch],
        rewards: ObjectRef[RewardBatch],
    ) -> ObjectRef[None]:
        """Have the score records of a step written."""
        return self.rank_0.record.remote(step, prompts, rollouts, scores, rewards)

    def finish_records(self, pending: list[ObjectRef[None]]) -> None:
        """Wait for records to be on disk, so that a failure to write is not lost."""
        self.wait(pending, what="writing the score records", deadline_s=self._config.limits.checkpoint_s)
