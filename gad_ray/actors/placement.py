"""Room on the cluster: all actors of a run are placed together, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import ray
from ray.actor import ActorClass
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gad_ray.activity import activity
from gad_ray.actors.process import runtime_env
from gad_ray.actors.waiting import Waiter
from gad_ray.errors import GadError

A = TypeVar("A")
Bundle = dict[str, float]


class Placement:
    """Bundles of resources that were reserved together, handed out one after the other.

    Args:
        bundles: What each actor reserves, in the order in which they are made.
        others: What others of the run will ask for: there has to be room for it as well.
        waiter: Waits for the cluster.
        deadline_s: Longest wait.

    Raises:
        GadError: If the whole cluster could never give so much.
    """

    def __init__(
        self, bundles: Sequence[Bundle], *, others: Sequence[Bundle] = (), waiter: Waiter, deadline_s: float
    ) -> None:
        wanted = [{kind: amount for kind, amount in bundle.items() if amount > 0} for bundle in bundles]
        require_resources([*wanted, *others])
        self._bundles = wanted
        self._given = 0
        self._group: PlacementGroup = placement_group(wanted, strategy="PACK")
        with activity(f"reserving room for {len(wanted)} actors on the cluster"):
            waiter.get(
                [self._group.ready()],
                what=f"a placement of {len(wanted)} actors on the cluster",
                deadline_s=deadline_s,
            )

    def next_actor(self, actor_class: type[A], *, threads: int) -> ActorClass[A]:
        """A class of actors that takes the next bundle."""
        bundle = self._bundles[self._given]
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=self._given)
        self._given += 1
        return ray.remote(actor_class).options(
            num_cpus=bundle.get("CPU", 0.0),
            num_gpus=bundle.get("GPU", 0.0),
            scheduling_strategy=strategy,
            runtime_env=runtime_env(threads=threads),
            max_restarts=0,
        )

    def remove(self) -> None:
        """Give everything back."""
        remove_placement_group(self._group)


def require_resources(bundles: Sequence[Bundle]) -> None:
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
                hint=f"lower {kind.lower()}s_per_rank and {kind.lower()}s_per_worker (fractions are allowed: "
                f"stages take turns), {kind.lower()}s_per_replica where the critic is served, lower the numbers of "
                "ranks, workers and replicas, or join a larger cluster",
            )
