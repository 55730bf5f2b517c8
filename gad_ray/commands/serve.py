"""``gad-ray serve``: settings from the command line, a line when it is ready, and the end on a signal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from gad_ray.errors import ConfigError


def serve_critic(
    critic: Path | None, follow: str | None, *, host: str, port: int, settings: dict[str, Any]
) -> int:
    """Serve a critic in the foreground.

    Args:
        critic: Directory of a checkpoint or an export.
        follow: Name or path of a run whose newest critic is served; either this or ``critic``.
        host: Address to listen on.
        port: Port to listen on.
        settings: Further settings of the application.

    Returns:
        The exit code.

    Raises:
        GadError: If the critic cannot be served there.
    """
    from gad_ray.observability.run_dir import find_run
    from gad_ray.precision import warn_of_slow_critic
    from gad_ray.serving.deployment.serve_command import serve_until_signal
    from gad_ray.serving.deployment.settings import settings_from

    if critic is not None and not critic.is_dir():
        raise ConfigError(
            f"there is no directory {critic}",
            where="--critic",
            hint="give a run's checkpoint or exports/critic",
        )
    source = {
        "critic": None if critic is None else str(critic.resolve()),
        "follow": None if follow is None else str(find_run(follow).root.resolve()),
    }
    chosen = settings_from({**source, **settings})
    if critic is not None:
        warn_of_slow_critic(critic, on_gpu=chosen.gpus_per_replica > 0)

    def ready(url: str) -> None:
        typer.echo(f"serving {critic or follow} at {url} (Ctrl-C ends it)")

    return serve_until_signal(chosen, host=host, port=port, on_ready=ready)


def adapters_of(given: Sequence[str]) -> dict[str, str]:
    """Names and directories of ``NAME=DIR``.

    Raises:
        ConfigError: If one is none, or has the name of another.
    """
    found: dict[str, str] = {}
    for text in given:
        name, _, place = text.partition("=")
        if not name or not Path(place).is_dir() or not place:
            raise ConfigError(
                f"{text!r} names no directory",
                where="--adapter",
                hint="give NAME=DIR, a LoRA critic's export",
            )
        if name in found:
            raise ConfigError(f"{name!r} is given twice", where="--adapter", hint="give each another name")
        found[name] = str(Path(place).resolve())
    return found
