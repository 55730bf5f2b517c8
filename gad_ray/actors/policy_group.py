"""The policy's ranks as the controller sees them."""

from __future__ import annotations

from pathlib import Path

from ray import ObjectRef

from gad_ray.actors.group import two
from gad_ray.actors.learner_group import LearnerGroup
from gad_ray.actors.policy import PolicyActor
from gad_ray.actors.rollouts import Rollouts
from gad_ray.actors.waiting import Waiter
from gad_ray.batch import Float32, PromptBatch, TrainBatch, TrainStats, WeightsReceipt, WeightsSnapshot
from gad_ray.config.run import RunConfig

PendingUpdate = list[ObjectRef[TrainStats]]


class PolicyGroup(LearnerGroup[PolicyActor]):
    """The ranks of the policy."""

    def __init__(self, config: RunConfig, waiter: Waiter) -> None:
        super().__init__(
            "policy",
            PolicyActor,
            config.policy.model,
            config.policy.group,
            config=config,
            waiter=waiter,
        )

    def setup(self, address: str, *, total_steps: int, fit_steps: int) -> list[ObjectRef[int]]:
        """Have the ranks join and load the model; gives process ids."""
        return self.each(lambda actor: actor.setup.remote(address, total_steps, fit_steps))

    def begin_adversarial(self) -> None:
        """Take the KL reference and a fresh optimiser."""
        self.wait(
            self.each(lambda actor: actor.begin_adversarial.remote()),
            what="the KL reference",
            deadline_s=self._config.limits.checkpoint_s,
        )

    def kl_penalty(self, rollouts: Rollouts) -> ObjectRef[Float32]:
        """[R] what the KL term takes from each reward, where it is part of the reward."""
        return self.each(lambda actor: actor.kl_penalty.remote(rollouts))[0]

    def update(self, batch: ObjectRef[TrainBatch]) -> PendingUpdate:
        """One step of the game."""
        return self.each(lambda actor: actor.update.remote(batch))

    def fit(self, prompts: ObjectRef[PromptBatch]) -> PendingUpdate:
        """One step of cross-entropy on the teacher's text."""
        return self.each(lambda actor: actor.fit.remote(prompts))

    def finish(self, pending: PendingUpdate, *, step: int) -> TrainStats:
        """Wait for a step's end."""
        what = f"the policy's update of step {step}"
        return self.wait(pending, what=what, deadline_s=self._config.limits.update_s)[0]

    def snapshot(
        self, *, perturbation: float = 0.0
    ) -> tuple[ObjectRef[WeightsSnapshot], ObjectRef[WeightsReceipt]]:
        """The weights for the rollout engines, and what is told of them."""
        return two(self.rank_0.snapshot.remote(perturbation))

    def teacher_nll(self, prompts: PromptBatch) -> Float32:
        """[N] negative log-likelihood of each teacher's text, nats a token."""
        call = self.rank_0.teacher_nll.remote(prompts)
        what = "the likelihood of the teacher's text"
        return self.wait([call], what=what, deadline_s=self._config.limits.score_s)[0]

    def export(self, directory: Path) -> None:
        """Write the policy as a Hugging Face directory."""
        self.wait(
            [self.rank_0.export.remote(str(directory))],
            what="the export of the policy",
            deadline_s=self._config.limits.checkpoint_s,
        )
