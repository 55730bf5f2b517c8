"""What the groups that train share: ranks of one model, where they meet, their settings and states."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from ray import ObjectRef

from gad_ray.actors.group import ActorGroup
from gad_ray.actors.learner import LearnerActor
from gad_ray.actors.placement import Bundle, Placement
from gad_ray.actors.waiting import Waiter
from gad_ray.auto import share_of_cores
from gad_ray.config.models import GroupConfig, ModelConfig
from gad_ray.config.run import RunConfig

L = TypeVar("L", bound=LearnerActor)


class LearnerGroup(ActorGroup[L]):
    """Ranks that share each batch and hold the same model.

    Args:
        kind: What they are called, before their rank.
        actor_class: What each of them is.
        model: What they train.
        sizes: How many there are, and what each reserves.
        config: The run.
        waiter: Waits for their results.
    """

    def __init__(
        self,
        kind: str,
        actor_class: type[L],
        model: ModelConfig,
        sizes: GroupConfig,
        *,
        config: RunConfig,
        waiter: Waiter,
    ) -> None:
        super().__init__(kind, waiter)
        self._actor_class = actor_class
        self._model = model.model
        self._sizes = sizes
        self._config = config

    @property
    def bundles(self) -> list[Bundle]:
        """What the ranks reserve."""
        each = {"CPU": self._sizes.cpus_per_rank, "GPU": self._sizes.gpus_per_rank}
        return [each] * self._sizes.num_ranks

    def place(self, placement: Placement, log_of: dict[str, str]) -> None:
        """Start the ranks' processes."""
        threads = self._sizes.threads or share_of_cores(self._model, self._sizes.num_ranks)
        for rank in range(self._sizes.num_ranks):
            actor = placement.next_actor(self._actor_class, threads=threads)
            self.add(actor.remote(self._config, rank, log_of[f"{self.kind}-{rank}"]))

    def reserve_address(self) -> ObjectRef[str]:
        """``tcp://host:port`` at which the ranks can meet."""
        return self.rank_0.reserve_address.remote()

    def take_settings(self, config: RunConfig) -> list[ObjectRef[None]]:
        """Have the ranks follow changed settings."""
        return self.each(lambda actor: actor.take_settings.remote(config))

    def save(self, directory: Path) -> ObjectRef[None]:
        """Have the state written into an existing directory; all ranks are alike, one of them writes."""
        return self.rank_0.save.remote(str(directory))

    def load(self, directory: Path) -> list[ObjectRef[None]]:
        """Have every rank take over what :meth:`save` wrote."""
        return self.each(lambda actor: actor.load.remote(str(directory)))
