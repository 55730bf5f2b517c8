"""The critics that a run has kept, in checkpoints and exports, and which of them gave a score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gad_ray.batch import Fingerprint
from gad_ray.checkpoint.store import CheckpointStore
from gad_ray.checkpoint.tensors import STATE_FILE, load_state
from gad_ray.config import RunConfig, load_config
from gad_ray.errors import CheckpointError, ConfigError
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_meta import exported_fingerprint, exported_training
from gad_ray.observability.run_dir import RunDirectory, find_run
from gad_ray.precision import warn_of_slow_critic

FINGERPRINT_FILE = "fingerprint.json"
"""Beside the critic's state in a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCritic:
    """A critic that is ready to score.

    Attributes:
        model: The critic.
        step: Optimiser steps that it has taken.
        temperature: τ of its loss, for probabilities of a comparison.
    """

    model: CriticModel
    step: int
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCritic:
    """A critic on disk.

    Attributes:
        path: Directory of the checkpoint, or of the export.
        kind: Which of the two it is.
        fingerprint: Of the critic; None in a checkpoint that does not say.
    """

    path: Path
    kind: Literal["checkpoint", "export"]
    fingerprint: Fingerprint | None

    def load(self, config: RunConfig) -> CriticModel:
        """The critic, ready to score by the path of training.

        Args:
            config: The run's, which says what the state in a checkpoint belongs to.

        Raises:
            GadError: If it cannot be loaded.
        """
        if self.kind == "checkpoint":
            return _from_checkpoint(self.path, config).model
        warn_of_slow_critic(self.path)
        return CriticModel.load(self.path)


def find_critics(directory: RunDirectory) -> list[KeptCritic]:
    """All critics of a run: those of its checkpoints, oldest first, then the exported ones.

    Raises:
        GadError: If one says nothing that can be read of itself.
    """
    found: list[KeptCritic] = []
    if directory.checkpoints.is_dir():
        store = CheckpointStore(directory.checkpoints, keep=1)
        found += [_of_checkpoint(path) for path in store.checkpoints()]
    for path in sorted(directory.exports.glob("*/critic.json")):
        found.append(_of_export(path.parent))
    return found


def find_target(target: str, output_dir: str) -> tuple[RunDirectory, KeptCritic | None]:
    """What ``RUN|CHECKPOINT`` on the command line names: a run, and one of its critics if it named that.

    Args:
        target: Name or path of a run, or path of one of its checkpoints or exported critics.
        output_dir: Where runs are looked for by name.

    Raises:
        GadError: If there is no such thing.
    """
    path = Path(target)
    if (path / "critic.json").is_file():
        return _run_above(path), _of_export(path)
    if (path / "critic" / STATE_FILE).is_file():
        return _run_above(path), _of_checkpoint(path)
    return find_run(target, output_dir), None


def open_critic(directory: Path) -> OpenedCritic:
    """The critic in a directory: an export wherever it lies, or a checkpoint that lies in its run.

    Raises:
        GadError: If there is none, or it cannot be loaded.
    """
    if (directory / "critic" / STATE_FILE).is_file():
        opened = _from_checkpoint(directory, config_of(_run_above(directory)))
        recorded = _of_checkpoint(directory).fingerprint
        differing = () if recorded is None else opened.model.fingerprint().differing(recorded)
        if differing:
            raise CheckpointError(
                f"its critic's {' and '.join(differing)} are not those that were saved",
                where=str(directory),
                hint="take another checkpoint; this one has been damaged or changed",
            )
        return opened
    step, temperature = exported_training(directory)
    return OpenedCritic(model=CriticModel.load(directory), step=step, temperature=temperature)


def config_of(directory: RunDirectory) -> RunConfig:
    """The configuration that a run was played with.

    Raises:
        ConfigError: If it cannot be read.
    """
    return load_config(str(directory.config_yaml))


def first_with(critics: Sequence[KeptCritic], fingerprint: Fingerprint | None) -> KeptCritic | None:
    """The first critic that is the one with a fingerprint."""
    if fingerprint is None:
        return None
    return next((critic for critic in critics if critic.fingerprint == fingerprint), None)


def _from_checkpoint(path: Path, config: RunConfig) -> OpenedCritic:
    learner = CriticLearner(
        config.critic,
        seed=config.seed,
        total_steps=1,
        collective=LocalCollective(),
        max_nonfinite_steps=0,
    )
    learner.load_state(*load_state(path / "critic" / STATE_FILE))
    return OpenedCritic(model=learner.model, step=learner.version, temperature=learner.temperature)


def _run_above(path: Path) -> RunDirectory:
    directory = RunDirectory(root=path.resolve().parent.parent)
    if not directory.config_yaml.is_file():
        raise ConfigError(
            f"{path} lies in no run: there is no {directory.config_yaml}",
            hint="give a checkpoint or export that still lies where its run wrote it",
        )
    return directory


def _of_export(path: Path) -> KeptCritic:
    return KeptCritic(path=path, kind="export", fingerprint=exported_fingerprint(path))


def _of_checkpoint(path: Path) -> KeptCritic:
    file = path / "critic" / FINGERPRINT_FILE
    if not file.exists():
        return KeptCritic(path=path, kind="checkpoint", fingerprint=None)
    try:
        parts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return KeptCritic(path=path, kind="checkpoint", fingerprint=Fingerprint(**parts))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"the critic's fingerprint cannot be read: {error}",
            where=str(file),
            hint="verify the checkpoint it belongs to, and take another one",
        ) from error
