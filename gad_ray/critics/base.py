"""What a critic is to whoever asks it: training's scoring, evaluation, the commands and the endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from gad_ray.batch import Fingerprint, Float32
from gad_ray.config.critic import FrozenCriticConfig, FrozenCriticSettings
from gad_ray.errors import ModelError
from gad_ray.models.pairs import Pair
from gad_ray.registry import Registry

SETTINGS_FILE = "frozen_critic.json"
"""What the export of a critic without weights of its own holds: its settings, and its fingerprint."""


class Critic(Protocol):
    """Scores pairs of prompt and response. Only differences within one prompt mean anything."""

    @property
    def where(self) -> str:
        """Where it is, for messages: a directory or a URL."""
        ...

    @property
    def step(self) -> int:
        """Optimiser steps that it has taken; 0 where it was never trained."""
        ...

    def score(self, pairs: Sequence[Pair]) -> Float32:
        """[N] float32 scores of pairs; equal pairs get the same number.

        Raises:
            GadError: If a pair cannot be scored, as where it is too long.
        """
        ...

    def fingerprint(self) -> Fingerprint:
        """Digest of everything that a score depends on: two critics of one fingerprint give the same scores."""
        ...

    def export(self, out_dir: Path) -> Fingerprint:
        """Write a directory from which :func:`gad_ray.critics.store.open_critic` opens it again.

        Raises:
            ModelError: If the directory cannot be written.
        """
        ...


CRITICS: Registry[FrozenCriticSettings, Callable[[Any], Critic]] = Registry("critic")
"""Settings of a critic that does not learn → (settings) → the critic, open."""


def export_settings(critic: Critic, settings: FrozenCriticSettings, out_dir: Path) -> Fingerprint:
    """Export a critic that is known by its settings, such as one behind an endpoint.

    Args:
        critic: The critic.
        settings: What :data:`CRITICS` opens it from.
        out_dir: Where to write.

    Raises:
        ModelError: If the directory cannot be written.
    """
    fingerprint = critic.fingerprint()
    told = {"settings": settings.model_dump(mode="json"), "fingerprint": asdict(fingerprint)}
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / SETTINGS_FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot be written: {error}", where=str(out_dir), hint="free space") from error
    return fingerprint


def open_settings(directory: Path) -> Critic:
    """Open what :func:`export_settings` wrote, and check that it is the same critic.

    Raises:
        ModelError: If it is damaged, or opens another critic by now.
        GadError: If the critic cannot be opened.
    """
    try:
        told = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
        adapter: TypeAdapter[FrozenCriticSettings] = TypeAdapter(FrozenCriticConfig)
        settings = adapter.validate_python(told["settings"])
        recorded = Fingerprint(**told["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise ModelError(
            f"{SETTINGS_FILE} cannot be used ({error})",
            where=str(directory),
            hint="export the critic again, or take an unchanged copy",
        ) from None
    critic = CRITICS.of(settings)(settings)
    differing = critic.fingerprint().differing(recorded)
    if differing:
        raise ModelError(
            f"it opens another critic than was exported: its {' and '.join(differing)} have changed",
            where=str(directory),
            hint="export the critic again",
        )
    return critic
