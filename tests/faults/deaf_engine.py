"""``gad-ray`` with rollout engines that accept new weights and go on using the old ones.

Run as a program in place of the command line; what it starts is otherwise the real thing.
"""

from __future__ import annotations

import ray

from gad_ray.actors import rollout_group
from gad_ray.actors.rollout import RolloutActor
from gad_ray.batch import WeightsSnapshot
from gad_ray.cli import main
from gad_ray.rollout.transformers_engine import TransformersEngine


class DeafEngine(TransformersEngine):
    """Takes every weight but the last normalisation's: the smallest change that an engine can miss."""

    def load_weights(self, weights: WeightsSnapshot) -> None:
        kept = {
            name: tensor for name, tensor in self._model.state_dict().items() if name == "model.norm.weight"
        }
        before = {name: tensor.clone() for name, tensor in kept.items()}
        super().load_weights(weights)
        for name, tensor in before.items():
            kept[name].copy_(tensor)


class DeafRolloutActor(RolloutActor):
    """A rollout actor with such an engine."""

    @ray.method
    def setup(self) -> int:
        pid = super().setup()
        self._ready._engine.__class__ = DeafEngine
        return pid


if __name__ == "__main__":
    rollout_group.RolloutActor = DeafRolloutActor
    main()
