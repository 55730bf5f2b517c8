"""``gad-ray serve``: the application on a Ray cluster, in the foreground until a signal, and nothing left behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import typer

from gad_ray.activity import activity, telling
from gad_ray.actors.session import RaySession
from gad_ray.auto import warn_of_slow_critic
from gad_ray.critics.store import check_critic
from gad_ray.errors import ConfigError, GadError
from gad_ray.interrupt import StopRequest
from gad_ray.observability.run_dir import find_run
from gad_ray.serving.deployment.address import SettingNames, check_address, url_of
from gad_ray.serving.deployment.ray_serve import deploy, end, listen, prepare_cluster, refuse_second_serve
from gad_ray.serving.deployment.settings import ServeSettings, settings_from

_LOOK_EVERY_S = 0.2


def serve_critic(
    critic: Path | None,
    follow: str | None,
    *,
    host: str,
    port: int,
    settings: Mapping[str, Any],
) -> int:
    """Serve a critic, or a run's newest, until SIGINT or SIGTERM.

    Args:
        critic: Directory of a checkpoint or an export.
        follow: Name or path of a run whose newest critic is served; either this or ``critic``.
        host: Address to listen on.
        port: Port to listen on.
        settings: Further fields of :class:`ServeSettings`.

    Returns:
        The exit code: 0 after a signal.

    Raises:
        GadError: If the critic cannot be served there.
    """
    if critic is not None:
        if not critic.is_dir():
            raise ConfigError(
                f"there is no directory {critic}",
                where="--critic",
                hint="give a run's checkpoint or exports/critic",
            )
        check_critic(critic)
    source = {
        "critic": None if critic is None else str(critic.resolve()),
        "follow": None if follow is None else str(find_run(follow).root.resolve()),
    }
    chosen = settings_from({**source, **settings})
    if critic is not None:
        warn_of_slow_critic(critic, on_gpu=chosen.gpus_per_replica > 0)

    def ready(url: str) -> None:
        typer.echo(f"serving {critic or follow} at {url} (Ctrl-C ends it)", file=sys.stdout)

    return serve_until_signal(chosen, host=host, port=port, on_ready=ready)


def serve_until_signal(
    settings: ServeSettings, *, host: str, port: int, on_ready: Callable[[str], None]
) -> int:
    """Serve a critic until SIGINT or SIGTERM, then end in good order: requests under way are answered.

    Args:
        settings: What to serve and how. Keys of the environment are added.
        host: Address to listen on.
        port: Port to listen on.
        on_ready: Is given the URL once requests are answered.

    Returns:
        The exit code: 0 after a signal.

    Raises:
        GadError: If the address must not or cannot be used, Serve runs on the cluster already, or the critic
            cannot be served.
    """
    settings = check_address(host, port, settings=settings, environment=os.environ, names=SettingNames())
    prepare_cluster()
    with (
        telling() as teller,
        StopRequest(teller.say_soon, ending="ending; requests under way are answered first") as stop,
        RaySession(),
    ):
        stop.listen()
        refuse_second_serve()
        try:
            with activity("starting Ray Serve"):
                listen(host, port, limits=settings.limits)
            with activity("loading the critic"):
                deploy(settings, wait=True)
            stop.listen()
            on_ready(url_of(host, port))
            while stop.signal_number is None:
                time.sleep(_LOOK_EVERY_S)
                _check_alive()
        finally:
            with activity("ending Ray Serve"):
                end()
    return 0


def _check_alive() -> None:
    if not ray.is_initialized():
        raise GadError("the Ray cluster is gone", hint="start it and serve again")
