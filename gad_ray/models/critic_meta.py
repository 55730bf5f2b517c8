"""What an exported critic says of itself, in ``critic.json``."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from gad_ray.batch import Fingerprint
from gad_ray.errors import ModelError

META = "critic.json"
FORMAT = 1


def exported_fingerprint(directory: Path) -> Fingerprint:
    """What an exported critic says of itself; :func:`gad_ray.models.critic_export.load_critic` checks it.

    Raises:
        ModelError: If the directory is no exported critic.
    """
    recorded = read_meta(directory)["fingerprint"]
    return Fingerprint(**{part.name: recorded[part.name] for part in fields(Fingerprint)})


def exported_training(directory: Path) -> tuple[int, float]:
    """Optimiser steps that an exported critic had taken, and the temperature of its loss.

    Raises:
        ModelError: If the directory is no exported critic.
    """
    meta = read_meta(directory)
    try:
        return int(meta["step"]), float(meta["temperature"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{META} does not tell step and temperature ({error!r})",
            where=str(directory),
            hint="export the critic again, or take a copy that was not changed",
        ) from None


def read_meta(directory: Path) -> dict[str, Any]:
    """Everything that it says.

    Raises:
        ModelError: If the directory is no exported critic.
    """
    path = directory / META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"is not an exported critic: {META} cannot be read ({error})",
            where=str(directory),
            hint="give the directory that a run wrote under exports/, e.g. exports/critic",
        ) from None
    if not isinstance(meta, dict) or cast("dict[str, Any]", meta).get("format") != FORMAT:
        raise ModelError(f"{META} is of another format", where=str(directory), hint="export the critic again")
    return cast("dict[str, Any]", meta)
