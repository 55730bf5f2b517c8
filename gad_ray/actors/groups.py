"""The three gangs of actors, placed together: rollout workers, critic ranks, policy ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gad_ray.activity import activity
from gad_ray.actors.critic import CriticActor
from gad_ray.actors.policy import PolicyActor
from gad_ray.actors.process import runtime_env
from gad_ray.actors.rollout import RolloutActor
from gad_ray.actors.waiting import Waiter
from gad_ray.batch import PromptBatch, RolloutReceipt, SamplingSettings
from gad_ray.config.run import RunConfig
from gad_ray.errors import GadError
from gad_ray.machine import share_of_cores

Ref = Any
"""An object reference. Ray's own types of them do not tell what a method with two results returns."""


@dataclass(frozen=True, slots=True)
class RolloutRefs:
    """Responses on their way: one batch and one receipt from every worker."""

    batches: tuple[Ref, ...]
    receipts: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class ActorLogs:
    """Where each actor writes its output."""

    root: Path

    def path(self, name: str) -> Path:
        """The log of one actor."""
        return self.root / f"{name}.log"


class Groups:
    """All actors of a run and the placement group that holds them.

    Attributes:
        waiter: Waits for their results.
        pids: Process ids of the actors on this machine's cluster, once they are set up.
    """

    def __init__(self, config: RunConfig, logs: ActorLogs, waiter: Waiter) -> None:
        self._config = config
        self._logs = logs
        self._placement: PlacementGroup | None = None
        self.waiter = waiter
        self.rollout: list[Any] = []
        self.critic: list[Any] = []
        self.policy: list[Any] = []
        self.pids: list[int] = []

    @staticmethod
    def names(config: RunConfig) -> list[str]:
        """Names of the actors, for logs and errors."""
        sizes = {
            "rollout": config.rollout.num_workers,
            "critic": config.critic.group.num_ranks,
            "policy": config.policy.group.num_ranks,
        }
        return [f"{kind}-{i}" for kind, size in sizes.items() for i in range(size)]

    def start(self, *, critic_steps: int, policy_steps: int, fit_steps: int) -> None:
        """Reserve the resources, start the actors and load their models.

        Args:
            critic_steps: Steps of the run in which the critic learns.
            policy_steps: Optimiser steps of the policy in the adversarial stage.
            fit_steps: Optimiser steps of the policy in the warm-up.

        Raises:
            GadError: If the cluster lacks the resources, or an actor fails to start.
        """
        config = self._config
        critic, policy = config.critic.group, config.policy.group
        trained = [
            {"CPU": group.cpus_per_rank, "GPU": group.gpus_per_rank}
            for group in (critic, policy)
            for _ in range(group.num_ranks)
        ]
        self._reserve([*self._rollout_bundles(), *trained], others=config.serve.bundles)
        bundle = self._make_rollout_actors()
        for kind, actor_class, group, actors in (
            ("critic", CriticActor, critic, self.critic),
            ("policy", PolicyActor, policy, self.policy),
        ):
            for rank in range(group.num_ranks):
                threads = group.threads or share_of_cores(group.num_ranks)
                name = f"{kind}-{rank}"
                actors.append(
                    self._actor(
                        actor_class, bundle, threads, group.cpus_per_rank, group.gpus_per_rank
                    ).remote(config, rank, str(self._logs.path(name)))
                )
                self.waiter.know(actors[-1], name)
                bundle += 1
        deadline = config.limits.start_s
        with activity(f"starting the processes of {', '.join(self.names(config))}"):
            critic_at, policy_at = self.waiter.get(
                [self.critic[0].reserve_address.remote(), self.policy[0].reserve_address.remote()],
                what="the processes' start",
                deadline_s=deadline,
            )
        meetings = {"critic": (critic, critic_at), "policy": (policy, policy_at)}
        told = [
            f"ranks of {kind} meet at {at}" for kind, (group, at) in meetings.items() if group.num_ranks > 1
        ]
        # Whoever reaches that port could join in.
        told += ["which listen on the cluster's interface alone"] if told else []
        with activity(", ".join(["loading the models", *told])):
            setups = [actor.setup.remote() for actor in self.rollout]
            setups += [actor.setup.remote(critic_at, critic_steps) for actor in self.critic]
            setups += [actor.setup.remote(policy_at, policy_steps, fit_steps) for actor in self.policy]
            self.pids = self.waiter.get(setups, what="the models", deadline_s=deadline)

    def share(self, prompts: PromptBatch) -> Ref:
        """A reference with which actors take the prompts from the object store."""
        return ray.put(prompts)

    def start_rollout(self) -> None:
        """The rollout workers alone, with the weights that the config names.

        Raises:
            GadError: If the cluster lacks the resources, or a worker fails to start.
        """
        self._reserve(self._rollout_bundles())
        self._make_rollout_actors()
        self.pids = self.waiter.get(
            [actor.setup.remote() for actor in self.rollout],
            what="loading the models",
            deadline_s=self._config.limits.start_s,
        )

    def generate(self, prompts: PromptBatch, sampling: SamplingSettings) -> RolloutRefs:
        """Ask every rollout worker for its share of the responses."""
        count = len(self.rollout)
        shards = [prompts.shard(i, count) for i in range(count)]
        pairs = [
            actor.generate.remote(shard, sampling)
            for actor, shard in zip(self.rollout, shards, strict=True)
            if shard is not None
        ]
        return RolloutRefs(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))

    def receipts(self, refs: RolloutRefs, *, what: str) -> list[RolloutReceipt]:
        """Wait for responses; returns what the controller is told of them."""
        return self.waiter.get(refs.receipts, what=what, deadline_s=self._config.limits.rollout_s)

    def sync(self, *, perturbation: float = 0.0) -> tuple[int, float]:
        """Bring the policy's weights to every rollout worker, each proving that it has them.

        Returns:
            The version and the largest gap of the probe, in nats.
        """
        deadline = self._config.limits.sync_s
        weights, version = self.policy[0].snapshot.remote(perturbation)
        gaps = [actor.load_weights.remote(weights) for actor in self.rollout]
        number = self.waiter.get([version], what="the policy's weights", deadline_s=deadline)[0]
        # Generations already under way end first.
        values = self.waiter.get(
            gaps, what="the rollout workers' new weights", deadline_s=deadline + self._config.limits.rollout_s
        )
        return int(number), max(float(v) for v in values)

    def stop(self) -> None:
        """End all actors and give their resources back; safe to call twice."""
        for actor in (*self.rollout, *self.critic, *self.policy):
            ray.kill(actor)
        self.rollout, self.critic, self.policy = [], [], []
        if self._placement is not None:
            remove_placement_group(self._placement)
            self._placement = None

    def _rollout_bundles(self) -> list[dict[str, float]]:
        rollout = self._config.rollout
        return [{"CPU": rollout.cpus_per_worker, "GPU": rollout.gpus_per_worker}] * rollout.num_workers

    def _make_rollout_actors(self) -> int:
        """In the first bundles of the placement; returns their number."""
        rollout = self._config.rollout
        threads = rollout.threads or share_of_cores(rollout.num_workers)
        for i in range(rollout.num_workers):
            name = f"rollout-{i}"
            self.rollout.append(
                self._actor(
                    RolloutActor, i, threads, rollout.cpus_per_worker, rollout.gpus_per_worker
                ).remote(self._config, str(self._logs.path(name)))
            )
            self.waiter.know(self.rollout[-1], name)
        return rollout.num_workers

    def _reserve(
        self, bundles: Sequence[dict[str, float]], *, others: Sequence[dict[str, float]] = ()
    ) -> None:
        """Place the actors, where there is also room for what others of the run will ask for."""
        wanted = [{kind: amount for kind, amount in bundle.items() if amount > 0} for bundle in bundles]
        require_resources([*wanted, *others])
        self._placement = placement_group(wanted, strategy="PACK")
        with activity(f"reserving room for {len(wanted)} actors on the cluster"):
            self.waiter.get(
                [self._placement.ready()],
                what=f"a placement of {len(wanted)} actors on the cluster",
                deadline_s=self._config.limits.start_s,
            )

    def _actor(self, actor_class: type[Any], bundle: int, threads: int, cpus: float, gpus: float) -> Any:
        assert self._placement is not None
        strategy = PlacementGroupSchedulingStrategy(self._placement, placement_group_bundle_index=bundle)
        return ray.remote(actor_class).options(
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy=strategy,
            runtime_env=runtime_env(threads=threads),
            max_restarts=0,
        )


def require_resources(bundles: Sequence[dict[str, float]]) -> None:
    """Refuse at once what the whole cluster could never give; what is busy is waited for.

    Raises:
        GadError: Naming what is asked for and what there is.
    """
    have = ray.cluster_resources()
    for kind in ("CPU", "GPU"):
        need = sum(bundle.get(kind, 0.0) for bundle in bundles)
        if need > have.get(kind, 0.0) + 1e-9:
            raise GadError(
                f"the run reserves {need:g} {kind}s, the cluster has {have.get(kind, 0.0):g}",
                where="placement",
                mend=f"lower {kind.lower()}s_per_rank and {kind.lower()}s_per_worker (fractions are allowed: "
                f"stages take turns), {kind.lower()}s_per_replica where the critic is served, lower the numbers of "
                "ranks, workers and replicas, or join a larger cluster",
            )
