"""The critic's ranks as the controller sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray import ObjectRef

from gad_ray.actors.critic import CriticActor
from gad_ray.actors.group import two
from gad_ray.actors.learner_group import LearnerGroup
from gad_ray.actors.rollouts import Rollouts
from gad_ray.actors.waiting import Waiter
from gad_ray.batch import PromptBatch, PublishedCritic, RolloutBatch, ScoreBatch, TrainStats
from gad_ray.config.run import RunConfig


@dataclass(frozen=True, slots=True)
class PendingCriticStep:
    """A step of the critic under way.

    Attributes:
        scores: Scores from before the update.
        stats: What the update did, from every rank.
    """

    scores: ObjectRef[ScoreBatch]
    stats: tuple[ObjectRef[TrainStats], ...]


class CriticGroup(LearnerGroup[CriticActor]):
    """The ranks of the critic."""

    def __init__(self, config: RunConfig, waiter: Waiter) -> None:
        super().__init__(
            "critic",
            CriticActor,
            config.critic.model,
            config.critic.group,
            config=config,
            waiter=waiter,
        )

    def setup(self, address: str, *, total_steps: int) -> list[ObjectRef[int]]:
        """Have the ranks join and load the model; gives process ids."""
        return self.each(lambda actor: actor.setup.remote(address, total_steps))

    def score(
        self, prompts: ObjectRef[PromptBatch], rollouts: Rollouts, *, what: str
    ) -> ObjectRef[ScoreBatch]:
        """Score samples without learning from them; the scores stay in the object store."""
        scored = [two(refs) for refs in self.each(lambda actor: actor.score_batch.remote(prompts, rollouts))]
        self.wait([count for _, count in scored], what=what, deadline_s=self._config.limits.score_s)
        return scored[0][0]

    def score_and_update(
        self, prompts: ObjectRef[PromptBatch], rollouts: Rollouts, *, recorded: bool
    ) -> PendingCriticStep:
        """Score the step's samples and learn from them.

        Args:
            prompts: The step's prompts.
            rollouts: The responses to them.
            recorded: The scores are to be recorded: they come with the critic's fingerprint and some tokens' values.
        """
        steps = [
            # Rank 0 alone answers for the group: the others need not take the fingerprint.
            two(actor.score_and_update.remote(recorded and rank == 0, prompts, rollouts))
            for rank, actor in enumerate(self._actors)
        ]
        return PendingCriticStep(steps[0][0], tuple(stats for _, stats in steps))

    def finish(self, pending: PendingCriticStep, *, step: int) -> TrainStats:
        """Wait for a step's end."""
        what = f"the critic's update of step {step}"
        return self.wait(pending.stats, what=what, deadline_s=self._config.limits.update_s)[0]

    def score_fixed(
        self, exported: str | None, prompts: PromptBatch, answers: Sequence[RolloutBatch]
    ) -> list[ScoreBatch]:
        """Scores of answers to the held-out prompts, by an exported critic or by the one in training."""
        call = self.rank_0.score_fixed.remote(exported, prompts, tuple(answers))
        what = "the scores of the held-out prompts"
        return self.wait([call], what=what, deadline_s=self._config.limits.score_s)[0]

    def publish(self) -> ObjectRef[PublishedCritic]:
        """Have the critic put into the object store; the reference is to the news of it."""
        # Rank 0's other work waits in line, so that this is the critic of this step.
        return self.rank_0.publish.remote()

    def export(self, directory: Path) -> None:
        """Write a directory that scores without the run."""
        self.wait(
            [self.rank_0.export.remote(str(directory))],
            what=f"the export of {directory.name}",
            deadline_s=self._config.limits.checkpoint_s,
        )
