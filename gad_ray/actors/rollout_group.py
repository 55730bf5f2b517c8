"""The rollout workers as the controller sees them."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray import ObjectRef

from gad_ray.actors.group import ActorGroup, two
from gad_ray.actors.placement import Bundle, Placement
from gad_ray.actors.rollout import RolloutActor
from gad_ray.actors.rollouts import Rollouts
from gad_ray.actors.waiting import Waiter
from gad_ray.auto import share_of_cores
from gad_ray.batch import PromptBatch, RolloutReceipt, SamplingSettings, WeightsSnapshot
from gad_ray.config.run import RunConfig


@dataclass(frozen=True, slots=True)
class PendingRollouts:
    """Responses on their way.

    Attributes:
        rollouts: The parts, once they are there.
        receipts: What the controller is told of each.
    """

    rollouts: Rollouts
    receipts: tuple[ObjectRef[RolloutReceipt], ...]


class RolloutGroup(ActorGroup[RolloutActor]):
    """Workers that each draw a share of the responses, with the same weights."""

    def __init__(self, config: RunConfig, waiter: Waiter) -> None:
        super().__init__("rollout", waiter)
        self._config = config

    @property
    def bundles(self) -> list[Bundle]:
        """What the workers reserve."""
        rollout = self._config.rollout
        return [{"CPU": rollout.cpus_per_worker, "GPU": rollout.gpus_per_worker}] * rollout.num_workers

    def place(self, placement: Placement, log_of: dict[str, str]) -> None:
        """Start the workers' processes."""
        rollout = self._config.rollout
        threads = rollout.threads or share_of_cores(self._config.policy.model.model, rollout.num_workers)
        for i in range(rollout.num_workers):
            actor = placement.next_actor(RolloutActor, threads=threads)
            self.add(actor.remote(self._config, log_of[f"rollout-{i}"]))

    def setup(self) -> list[ObjectRef[int]]:
        """Have engines and models loaded; gives process ids."""
        return self.each(lambda actor: actor.setup.remote())

    def generate(self, prompts: PromptBatch, sampling: SamplingSettings) -> PendingRollouts:
        """Ask every worker for its share of the responses."""
        count = len(self._actors)
        shards = [prompts.shard(i, count) for i in range(count)]
        pairs = [
            two(actor.generate.remote(shard, sampling))
            for actor, shard in zip(self._actors, shards, strict=True)
            if shard is not None
        ]
        return PendingRollouts(Rollouts(tuple(p[0] for p in pairs)), tuple(p[1] for p in pairs))

    def receipts(self, pending: PendingRollouts, *, what: str) -> list[RolloutReceipt]:
        """Wait for responses; returns what the controller is told of them."""
        return self.wait(pending.receipts, what=what, deadline_s=self._config.limits.rollout_s)

    def take_weights(self, weights: ObjectRef[WeightsSnapshot]) -> float:
        """Have every worker take new weights and prove it; returns the largest gap of the probe, in nats."""
        limits = self._config.limits
        # Generations already under way end first.
        gaps = self.wait(
            self.each(lambda actor: actor.load_weights.remote(weights)),
            what="the rollout workers' new weights",
            deadline_s=limits.sync_s + limits.rollout_s,
        )
        return max(gaps)


def share(prompts: PromptBatch) -> ObjectRef[PromptBatch]:
    """A reference with which actors take prompts from the object store."""
    return ray.put(prompts)
