"""``gad-ray serve``: settings from the command line, a line when it is ready, and the end on a signal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from gad_ray.errors import ConfigError


def serve_critic(critic: Path, *, host: str, port: int, settings: dict[str, Any]) -> int:
    """Serve a critic in the foreground.

    Args:
        critic: Directory of a checkpoint or an export.
        host: Address to listen on.
        port: Port to listen on.
        settings: Further settings of the application; those that are None have their defaults.

    Returns:
        The exit code.

    Raises:
        GadError: If the critic cannot be served there.
    """
    from gad_ray.serving.foreground import serve_until_signal
    from gad_ray.serving.settings import ServeSettings

    if not critic.is_dir():
        raise ConfigError(
            f"there is no directory {critic}",
            where="--critic",
            mend="give a run's checkpoint or exports/critic",
        )
    try:
        chosen = ServeSettings.model_validate({"critic": str(critic.resolve()), **settings})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}", mend="see gad-ray serve --help"
        ) from None

    def ready(url: str) -> None:
        typer.echo(f"serving {critic} at {url} (Ctrl-C ends it)")

    return serve_until_signal(chosen, host=host, port=port, on_ready=ready)
