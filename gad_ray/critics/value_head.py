"""The critic that the game trains: a backbone with a value head, opened to score and not to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gad_ray.auto import warn_of_slow_critic
from gad_ray.batch import Fingerprint, Float32
from gad_ray.checkpoint.tensors import STATE_FILE, load_state
from gad_ray.config import RunConfig
from gad_ray.config.critic import ExportedCriticSettings
from gad_ray.critics.base import CRITICS
from gad_ray.errors import CheckpointError
from gad_ray.learners.optim import MASTER
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic, load_critic
from gad_ray.models.critic_meta import exported_training
from gad_ray.models.pairs import Pair

MICRO_BATCH_TOKENS = 8192
"""Tokens, padding included, in one forward pass, where nobody says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueHeadCritic:
    """A value head that is ready to score; see :class:`gad_ray.critics.base.Critic`.

    Attributes:
        model: The critic.
        step: Optimiser steps that it has taken.
        temperature: τ of its loss, for probabilities of a comparison.
        micro_batch_tokens: Tokens, padding included, in one forward pass. What is scored together decides the last bits
            of a score in bfloat16.
        where: Where it came from.
    """

    model: CriticModel
    step: int
    temperature: float
    micro_batch_tokens: int = MICRO_BATCH_TOKENS
    where: str = "memory"

    @classmethod
    def exported(
        cls, directory: Path, *, on_gpu: bool = False, micro_batch_tokens: int = MICRO_BATCH_TOKENS
    ) -> ValueHeadCritic:
        """An exported critic, checked to be the one that was exported.

        Args:
            directory: Where it was exported to.
            on_gpu: Whether it will compute on a GPU; where it is not, and will be slow, that is told.
            micro_batch_tokens: Tokens in one forward pass.

        Raises:
            ModelError: If the directory is no exported critic, or is damaged.
        """
        warn_of_slow_critic(directory, on_gpu=on_gpu)
        step, temperature = exported_training(directory)
        return cls(
            model=load_critic(directory),
            step=step,
            temperature=temperature,
            micro_batch_tokens=micro_batch_tokens,
            where=str(directory),
        )

    @classmethod
    def of_checkpoint(cls, path: Path, config: RunConfig) -> ValueHeadCritic:
        """The critic in a checkpoint of a run.

        Args:
            path: The checkpoint.
            config: The run's, which says what the weights belong to.

        Raises:
            GadError: If the model or the checkpoint cannot be read, or they do not belong together.
        """
        critic = config.critic
        model = CriticModel.build(
            critic.model,
            pooling=critic.pooling,
            max_tokens=critic.max_tokens,
            seed=config.seed,
            packing=critic.packing,
        )
        tensors, plain = load_state(path / "critic" / STATE_FILE, prefix=MASTER)
        _take_weights(model, tensors, where=path)
        model.updates = int(plain["steps_taken"])
        return cls(
            model=model.eval(),
            step=model.updates,
            temperature=float(plain["temperature"]),
            micro_batch_tokens=critic.pass_tokens,
            where=str(path),
        )

    def score(self, pairs: Sequence[Pair]) -> Float32:
        """[N] float32 scores of pairs of text, by the path of training.

        Raises:
            DataError: If a pair is longer than the critic's limit.
        """
        return self.model.score(pairs, micro_batch_tokens=self.micro_batch_tokens)

    def fingerprint(self) -> Fingerprint:
        """Digest of everything that a score depends on."""
        return self.model.fingerprint()

    def export(self, out_dir: Path) -> Fingerprint:
        """Write a directory that scores without the run."""
        return export_critic(self.model, out_dir, step=self.step, temperature=self.temperature)


@CRITICS.register(ExportedCriticSettings)
def _open(settings: ExportedCriticSettings) -> ValueHeadCritic:
    """On the GPU where the process has one."""
    on_gpu = torch.cuda.is_available()
    opened = ValueHeadCritic.exported(Path(settings.path), on_gpu=on_gpu)
    opened.model.to("cuda" if on_gpu else "cpu")
    return opened


@torch.no_grad()
def _take_weights(model: CriticModel, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Round saved master weights into a model, as its training does."""
    trained: dict[str, Any] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    differing = sorted({f"{MASTER}{name}" for name in trained} ^ tensors.keys())
    if differing:
        raise CheckpointError(
            f"its critic is another than the run's configuration says; {differing[0]} is on one side only",
            where=str(where),
            hint="open it with the configuration of its own run",
        )
    for name, parameter in trained.items():
        parameter.copy_(tensors[f"{MASTER}{name}"])
