"""All actors of a run, placed together: rollout workers, critic ranks, policy ranks, the reward stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gad_ray.activity import activity
from gad_ray.actors.critic_group import CriticGroup
from gad_ray.actors.placement import Placement
from gad_ray.actors.policy_group import PolicyGroup
from gad_ray.actors.reward_group import RewardGroup
from gad_ray.actors.rollout_group import RolloutGroup
from gad_ray.actors.waiting import StopSignal, Waiter
from gad_ray.batch import WeightsReceipt
from gad_ray.config.run import RunConfig
from gad_ray.observability.run_dir import RunDirectory


class ActorGroups:
    """The groups of a run and the room that they have on the cluster.

    Args:
        config: The run.
        directory: Where the actors' logs and the records go.
        stop: Tells a wait that it should be given up.
        kinds: Of the actors that are to be started: an error quotes their logs.
        waiter_class: What waits for them.

    Attributes:
        rollout: Draws responses.
        critic: Scores them, and learns.
        rewards: Turns scores into rewards and advantages.
        policy: Learns from those.
        waiter: Waits for all of them.
        pids: Process ids of the actors on this machine's cluster, once they are set up.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        stop: StopSignal,
        *,
        kinds: Sequence[str] = ("rollout", "critic", "policy", "rewards"),
        waiter_class: type[Waiter] = Waiter,
    ) -> None:
        self._config = config
        self._records = directory.records
        self._logs = {name: directory.logs / f"{name}.log" for name in actor_names(config, kinds)}
        self._placement: Placement | None = None
        self.waiter = waiter_class(self._logs, stop)
        self.rollout = RolloutGroup(config, self.waiter)
        self.critic = CriticGroup(config, self.waiter)
        self.policy = PolicyGroup(config, self.waiter)
        self.rewards = RewardGroup(config, self.waiter)
        self.pids: list[int] = []

    def start(self, *, critic_steps: int, policy_steps: int, fit_steps: int) -> None:
        """Reserve the resources, start the actors and load their models.

        Args:
            critic_steps: Steps of the run in which the critic learns.
            policy_steps: Optimiser steps of the policy in the adversarial stage.
            fit_steps: Optimiser steps of the policy in the warm-up.

        Raises:
            GadError: If the cluster lacks the resources, or an actor fails to start.
        """
        config, deadline_s = self._config, self._config.limits.start_s
        placed = (self.rollout, self.critic, self.policy)
        bundles = [bundle for group in placed for bundle in group.bundles]
        placement, logs = self._reserve(bundles, others=config.serve.bundles), self._log_names()
        for group in placed:
            group.place(placement, logs)
        self.rewards.place(logs, records=str(self._records))
        with activity(f"starting the processes of {', '.join(self._logs)}"):
            critic_at, policy_at = self.waiter.get(
                [self.critic.reserve_address(), self.policy.reserve_address()],
                what="the processes' start",
                deadline_s=deadline_s,
            )
        meetings = {"critic": (config.critic.group, critic_at), "policy": (config.policy.group, policy_at)}
        told = [
            f"ranks of {kind} meet at {at}" for kind, (group, at) in meetings.items() if group.num_ranks > 1
        ]
        # Whoever reaches that port could join in.
        told += ["which listen on the cluster's interface alone"] if told else []
        with activity(", ".join(["loading the models", *told])):
            setups = [
                *self.rollout.setup(),
                *self.critic.setup(critic_at, total_steps=critic_steps),
                *self.policy.setup(policy_at, total_steps=policy_steps, fit_steps=fit_steps),
                *self.rewards.setup(),
            ]
            self.pids = self.waiter.get(setups, what="the models", deadline_s=deadline_s)

    def start_rollout(self) -> None:
        """The rollout workers alone, with the weights that the config names.

        Raises:
            GadError: If the cluster lacks the resources, or a worker fails to start.
        """
        self.rollout.place(self._reserve(self.rollout.bundles), self._log_names())
        self.pids = self.waiter.get(
            self.rollout.setup(), what="loading the models", deadline_s=self._config.limits.start_s
        )

    def sync(self, *, perturbation: float = 0.0) -> tuple[WeightsReceipt, float]:
        """Bring the policy's weights to every rollout worker, each proving that it has them.

        Returns:
            What was sent, and the largest gap of the probe, in nats.
        """
        weights, told = self.policy.snapshot(perturbation=perturbation)
        (receipt,) = self.waiter.get(
            [told], what="the policy's weights", deadline_s=self._config.limits.sync_s
        )
        return receipt, self.rollout.take_weights(weights)

    def take_settings(self, config: RunConfig) -> None:
        """Have critic and policy follow settings that change while a run goes."""
        self.waiter.get(
            [*self.critic.take_settings(config), *self.policy.take_settings(config)],
            what="the learners to take over changed settings",
            deadline_s=self._config.limits.update_s,
        )

    def save(self, directory: Path) -> None:
        """Write the states of critic and policy into folders of these names."""
        places = {kind: directory / kind for kind in ("critic", "policy")}
        for place in places.values():
            place.mkdir()
        saves = [self.critic.save(places["critic"]), self.policy.save(places["policy"])]
        limit = self._config.limits.checkpoint_s
        self.waiter.get(saves, what="saving a checkpoint", deadline_s=limit)

    def load(self, directory: Path) -> None:
        """Have critic and policy take over what :meth:`save` wrote."""
        loads = [*self.critic.load(directory / "critic"), *self.policy.load(directory / "policy")]
        limit = self._config.limits.checkpoint_s
        self.waiter.get(loads, what="restoring the checkpoint", deadline_s=limit)

    def stop(self) -> None:
        """End all actors and give their resources back; safe to call twice."""
        for group in (self.rollout, self.critic, self.policy, self.rewards):
            group.stop()
        if self._placement is not None:
            self._placement.remove()
            self._placement = None

    def _reserve(
        self, bundles: list[dict[str, float]], *, others: Sequence[dict[str, float]] = ()
    ) -> Placement:
        limit = self._config.limits.start_s
        self._placement = Placement(bundles, others=others, waiter=self.waiter, deadline_s=limit)
        return self._placement

    def _log_names(self) -> dict[str, str]:
        return {name: str(path) for name, path in self._logs.items()}


def actor_names(config: RunConfig, kinds: Sequence[str]) -> list[str]:
    """Names of a run's actors, for logs and errors."""
    sizes = {
        "rollout": config.rollout.num_workers,
        "critic": config.critic.group.num_ranks,
        "policy": config.policy.group.num_ranks,
        "rewards": 1,
    }
    return [f"{kind}-{i}" for kind in kinds for i in range(sizes[kind])]
