"""``gad-ray serve``: the application on a Ray cluster, in the foreground until a signal, and nothing left behind."""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections.abc import Callable

import ray
from ray import serve

from gad_ray.actors.session import RaySession
from gad_ray.controller.interrupt import StopRequest
from gad_ray.errors import ConfigError, GadError
from gad_ray.serving.deployment import DEPLOYMENT, application
from gad_ray.serving.keys import digests_from, require_key
from gad_ray.serving.proxy import IMPORT_PATH, PATH_VARIABLE
from gad_ray.serving.settings import ServeSettings

APPLICATION = "gad-ray"

_GRACE_S = 5.0
_LOOK_EVERY_S = 0.2


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
    digests = [*settings.key_digests, *digests_from(os.environ)]
    require_key(host, has_keys=bool(digests) or settings.key_file is not None)
    _check_port(host, port)
    settings = settings.model_copy(update={"key_digests": digests})
    # In effect where the cluster is started here; another one has it from its own environment.
    os.environ.setdefault(PATH_VARIABLE, IMPORT_PATH)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with StopRequest() as stop, RaySession():
        stop.listen()
        _refuse_second_serve()
        try:
            _start(settings, host=host, port=port)
            stop.listen()
            on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            while stop.signal_number is None:
                time.sleep(_LOOK_EVERY_S)
                _check_alive()
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # The proxy stays until requests under way are answered; new ones find no application.
                serve.delete(APPLICATION)
                serve.shutdown()
    return 0


def _start(settings: ServeSettings, *, host: str, port: int) -> None:
    limits = settings.limits
    timeout_s = limits.body_timeout_s + limits.request_timeout_s + _GRACE_S
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port, "request_timeout_s": timeout_s},
    )
    try:
        serve.run(application(settings), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise _start_failed(error) from None


def _start_failed(error: RuntimeError) -> GadError:
    found = serve.status().applications.get(APPLICATION)
    told = (
        "" if found is None else found.deployments[DEPLOYMENT].message if found.deployments else found.message
    )
    return GadError(
        f"the critic cannot be served: {told or error}",
        mend="gad-ray score --critic DIR tries the same critic without Serve",
    )


def _check_alive() -> None:
    if not ray.is_initialized():
        raise GadError("the Ray cluster is gone", mend="start it and serve again")


def _refuse_second_serve() -> None:
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return
    raise GadError(
        "Ray Serve runs on this cluster already, with an address of its own",
        mend="deploy to it with serve deploy and a YAML, end it with serve shutdown, or unset RAY_ADDRESS",
    )


def _check_port(host: str, port: int) -> None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            where="--host and --port",
            mend="choose another port, or end what uses it",
        ) from None
