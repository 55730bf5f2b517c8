"""Ray Serve on a cluster: start it, deploy the critic, end it."""

from __future__ import annotations

import logging
import os
import warnings

import ray
from ray import serve
from ray.serve import RunTarget
from ray.serve.schema import ApplicationStatus, ProxyStatus

from gad_ray.errors import GadError
from gad_ray.serving.deployment import DEPLOYMENT, application
from gad_ray.serving.limits import Limits
from gad_ray.serving.proxy import CLUSTER_VARIABLES
from gad_ray.serving.settings import ServeSettings

APPLICATION = "gad-ray"

_GRACE_S = 5.0


def prepare_cluster() -> None:
    """Settle what a cluster that is started here must know; another one has it from its own environment."""
    for name, value in CLUSTER_VARIABLES.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)


def refuse_second_serve() -> None:
    """Raise if somebody serves on this cluster.

    Raises:
        GadError: Telling what to do about it.
    """
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return
    raise GadError(
        "Ray Serve runs on this cluster already, with an address of its own",
        mend="deploy to it with serve deploy and a YAML, end it with serve shutdown, or unset RAY_ADDRESS",
    )


def listen(host: str, port: int, *, limits: Limits) -> None:
    """Start Serve and what listens.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        limits: Of which the proxy's own time limit follows.
    """
    timeout_s = limits.body_timeout_s + limits.request_timeout_s + _GRACE_S
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port, "request_timeout_s": timeout_s},
    )


def deploy(settings: ServeSettings, *, wait: bool) -> None:
    """Deploy the critic.

    Args:
        settings: What to serve and how.
        wait: Until it answers; else it starts by itself, and :func:`trouble` tells if it cannot.

    Raises:
        GadError: If it cannot be served.
    """
    target = RunTarget(target=application(settings), name=APPLICATION, route_prefix="/")
    try:
        serve.run_many(
            [target], wait_for_ingress_deployment_creation=wait, wait_for_applications_running=wait
        )
    except RuntimeError as error:
        raise GadError(
            f"the critic cannot be served: {trouble() or error}",
            mend="gad-ray score --critic DIR tries the same critic without Serve",
        ) from None


def trouble() -> str | None:
    """What Serve says where something fails or is missing; None where all starts or runs."""
    status = serve.status()
    if any(proxy == ProxyStatus.UNHEALTHY for proxy in status.proxies.values()):
        return "what listens is not up; Serve tries again"
    found = status.applications.get(APPLICATION)
    if found is None:
        return "it is not deployed any more"
    if found.status in (ApplicationStatus.DEPLOYING, ApplicationStatus.RUNNING):
        return None
    return found.deployments[DEPLOYMENT].message if DEPLOYMENT in found.deployments else found.message


def end() -> None:
    """End Serve: requests under way are answered, new ones find no application meanwhile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        serve.delete(APPLICATION)
        serve.shutdown()
