"""The critics that a run has kept, in checkpoints and exports, and which of them gave a score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gad_ray.batch import Fingerprint
from gad_ray.checkpoint.store import CheckpointStore
from gad_ray.checkpoint.tensors import STATE_FILE
from gad_ray.config import RunConfig, load_config
from gad_ray.config.critic import RemoteCriticSettings
from gad_ray.critics.base import CRITICS, SETTINGS_FILE, Critic, open_settings
from gad_ray.critics.value_head import MICRO_BATCH_TOKENS, ValueHeadCritic
from gad_ray.errors import CheckpointError, ConfigError
from gad_ray.models.critic_meta import exported_fingerprint
from gad_ray.observability.run_dir import RunDirectory, find_run

KEY_VARIABLE: str = RemoteCriticSettings.model_fields["key_env"].default
FINGERPRINT_FILE = "fingerprint.json"
"""Beside the critic's state in a checkpoint."""


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

    def load(self, config: RunConfig) -> ValueHeadCritic:
        """The critic, ready to score by the path of training.

        Args:
            config: The run's, which says what the state in a checkpoint belongs to.

        Raises:
            GadError: If it cannot be loaded.
        """
        if self.kind == "checkpoint":
            return ValueHeadCritic.of_checkpoint(self.path, config)
        tokens = config.critic.pass_tokens
        return ValueHeadCritic.exported(self.path, micro_batch_tokens=tokens)


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
    if _is_checkpoint(path):
        return _run_above(path), _of_checkpoint(path)
    return find_run(target, output_dir), None


def check_critic(directory: Path) -> None:
    """Refuse, without loading anything, a directory that holds neither a checkpoint's critic nor an exported one.

    Raises:
        ModelError: If it does not.
    """
    if not _is_checkpoint(directory):
        exported_fingerprint(directory)


def is_url(source: str | Path) -> bool:
    """Whether a critic is named by where it is served, and not by where it lies."""
    return str(source).startswith(("http://", "https://"))


def open_critic(
    source: str | Path, *, micro_batch_tokens: int | None = None, key_env: str = KEY_VARIABLE
) -> Critic:
    """Any critic, ready to score.

    Args:
        source: Directory of an export, wherever it lies; of a checkpoint, in its run; or the URL of an endpoint.
        micro_batch_tokens: Tokens, padding included, in one forward pass of an exported value head.
        key_env: Environment variable with the endpoint's key, where it wants one.

    Raises:
        GadError: If there is none, or it cannot be opened.
    """
    if is_url(source):
        settings = RemoteCriticSettings(url=str(source), key_env=key_env)
        return CRITICS.of(settings)(settings)
    directory = Path(source)
    if (directory / SETTINGS_FILE).is_file():
        return open_settings(directory)
    return open_value_head(directory, micro_batch_tokens=micro_batch_tokens)


def open_value_head(directory: Path, *, micro_batch_tokens: int | None = None) -> ValueHeadCritic:
    """The value head in a directory: for what needs its tokens' values, beyond what all critics give.

    Args:
        directory: An export wherever it lies, or a checkpoint that lies in its run.
        micro_batch_tokens: Tokens, padding included, in one forward pass of an export.

    Raises:
        GadError: If there is none, or it cannot be loaded.
    """
    if not _is_checkpoint(directory):
        return ValueHeadCritic.exported(
            directory, micro_batch_tokens=micro_batch_tokens or MICRO_BATCH_TOKENS
        )
    opened = ValueHeadCritic.of_checkpoint(directory, config_of(_run_above(directory)))
    recorded = _of_checkpoint(directory).fingerprint
    differing = () if recorded is None else opened.fingerprint().differing(recorded)
    if differing:
        raise CheckpointError(
            f"its critic's {' and '.join(differing)} are not those that were saved",
            where=str(directory),
            hint="take another checkpoint; this one has been damaged or changed",
        )
    return opened


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


def _is_checkpoint(directory: Path) -> bool:
    return (directory / "critic" / STATE_FILE).is_file()


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
