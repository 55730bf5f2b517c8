"""What the actors of critic and policy share: threads, rendezvous, saving and loading."""

from __future__ import annotations

import os
from pathlib import Path

import ray
import torch

from gad_ray.actors.process import redirect_output
from gad_ray.checkpoint.tensors import STATE_FILE, load_state, save_state
from gad_ray.config.models import GroupConfig
from gad_ray.config.run import RunConfig
from gad_ray.critics.frozen import FrozenCriticLearner
from gad_ray.learners.collective import Collective, LocalCollective, TorchCollective, reserve_address
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.policy import PolicyLearner


class LearnerActor:
    """One rank of a group that trains one model.

    Args:
        group: Sizes of the group.
        rank: This process's place in it.
        log_path: File for the process's output.
        timeout_s: Deadline of joining the group and of its collective calls.
    """

    def __init__(self, group: GroupConfig, rank: int, log_path: str, timeout_s: float) -> None:
        redirect_output(Path(log_path))
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self._group = group
        self._rank = rank
        self._timeout_s = timeout_s
        self._collective: Collective = LocalCollective()

    @ray.method
    def reserve_address(self) -> str:
        """``tcp://host:port`` at which this rank can be met, on the cluster's interface alone."""
        return reserve_address(ray.util.get_node_ip_address())

    def join(self, address: str) -> torch.device:
        """Join the other ranks and return the device to compute on."""
        device = torch.device("cuda" if self._group.gpus_per_rank > 0 else "cpu")
        if self._group.num_ranks > 1:
            self._collective = TorchCollective(
                rank=self._rank,
                size=self._group.num_ranks,
                address=address,
                timeout_s=self._timeout_s,
                device=device,
            )
        return device

    @ray.method
    def close(self) -> None:
        """Leave the group."""
        self._collective.close()

    @property
    def learner(self) -> CriticLearner | FrozenCriticLearner | PolicyLearner:
        """The learner that this actor holds."""
        raise AssertionError("a LearnerActor is made through its subclasses")

    @ray.method
    def take_settings(self, config: RunConfig) -> None:
        """Take over what may change while a run goes."""
        self.follow(config)

    def follow(self, config: RunConfig) -> None:
        """What :meth:`take_settings` does here."""
        raise AssertionError(
            f"no learner to follow {config.name}: a LearnerActor is made through its subclasses"
        )

    @ray.method
    def save(self, directory: str) -> None:
        """Write the learner's state into an existing directory; all ranks are alike, one of them writes."""
        self.write(Path(directory))

    def write(self, directory: Path) -> None:
        """What :meth:`save` does here."""
        tensors, plain = self.learner.state()
        save_state(directory / STATE_FILE, tensors, plain)

    @ray.method
    def load(self, directory: str) -> None:
        """Take over what :meth:`save` wrote."""
        tensors, plain = load_state(Path(directory) / STATE_FILE)
        self.learner.load_state(tensors, plain)
