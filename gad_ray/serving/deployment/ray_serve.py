"""The Ray Serve application: one deployment, whose replicas each hold the critic, its batcher and its guard.

    client ──► Serve's proxy ──► replica: guard → routes → service → batcher → critic

``build`` is what ``serve deploy`` takes as ``import_path``; ``gad-ray serve`` uses it as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve import Application, RunTarget
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig
from ray.serve.schema import ApplicationStatus, ProxyStatus

from gad_ray.actors.process import runtime_env
from gad_ray.config.endpoint import Limits
from gad_ray.errors import GadError, ModelError
from gad_ray.machine import share_of_cores
from gad_ray.models.onednn_linear import PACKED_ENV
from gad_ray.serving.application.adapters import AdapterPool
from gad_ray.serving.application.any_critic import load_served
from gad_ray.serving.application.app import build_app
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.follow import Follower
from gad_ray.serving.application.forward_pool import Passes, passes_at_once
from gad_ray.serving.application.keys import KeyRing, digests_from
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.metrics import ServingMetrics
from gad_ray.serving.application.service import ScoringService
from gad_ray.serving.application.versions import Versions
from gad_ray.serving.deployment.proxy import CLUSTER_VARIABLES
from gad_ray.serving.deployment.run_channel import RunChannel, end_serve, replica_name
from gad_ray.serving.deployment.scaling import BUSY, WAITING_S, WaitingWork
from gad_ray.serving.deployment.settings import ReplicaSettings, ServedSource, ServeSettings, settings_from
from gad_ray.serving.deployment.subscriber import ChannelGoneError, Subscriber

DEPLOYMENT = "critic"
APPLICATION = "gad-ray"

_GRACE_S = 5.0


class CriticReplica:
    """One replica. It is ready once :meth:`reconfigure` has loaded a critic and scored a first text.

    Args:
        settings: ``ReplicaSettings`` as a mapping.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        from ray.util import metrics as ray_metrics

        self._settings = ReplicaSettings.model_validate(settings)
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        torch.set_num_threads(threads)
        on_gpu = self._settings.gpus_per_replica > 0 and torch.cuda.is_available()
        # Keys in the node's environment count too: so a YAML need not name any.
        digests = [*self._settings.key_digests, *digests_from(os.environ)]
        key_file = self._settings.key_file
        self._keys = KeyRing(digests, file=None if key_file is None else Path(key_file))
        self._metrics = ServingMetrics(cast("Any", ray_metrics))
        limits = self._settings.limits
        self._batcher = Batcher(
            self._settings.batching,
            max_queued_tokens=limits.max_queued_tokens,
            max_queued_requests=limits.max_queued_requests,
            on_gpu=on_gpu,
            passes=Passes(passes_at_once(on_gpu=on_gpu, threads=threads), threads=threads),
            watcher=self._metrics,
        )
        self._device = torch.device("cuda" if on_gpu else "cpu")
        self._adapters = AdapterPool(
            {name: Path(place) for name, place in self._settings.adapters.items()},
            backbone=self._settings.backbone,
            max_loaded=self._settings.max_adapters,
            device=self._device,
            watcher=self._metrics,
        )
        self._service = ScoringService(
            None, name=self._settings.name, limits=limits, batcher=self._batcher, adapters=self._adapters
        )
        self._versions = Versions(
            self._service,
            load=partial(self._adapters.load_critic, partial(load_served, device=self._device)),
            keep=self._settings.keep_versions,
            watcher=self._metrics,
        )
        self._following: asyncio.Task[None] | None = None

    async def reconfigure(self, source: dict[str, Any]) -> None:
        """Serve a critic, or follow a run. Serve calls it at the start, and when the source changes.

        Args:
            source: ``ServedSource`` as a mapping.

        Raises:
            GadError: If there is nothing to serve at all. A later critic that is not fit is refused, logged and
                counted, and the one before goes on.
        """
        wanted = ServedSource.model_validate(source)
        self._stop_following()
        if wanted.critic is not None:
            await self._versions.serve(wanted.critic)
        elif wanted.channel is not None:
            await self._subscribe(wanted.channel)
        else:
            follower = Follower(
                Path(str(wanted.follow)), self._versions, every_s=self._settings.follow_every_s
            )
            await follower.look()
            self._following = asyncio.get_running_loop().create_task(follower.keep_looking())
        if self._service.present is None:
            raise ModelError(
                self._versions.refused or f"the run {wanted.follow} has no critic yet",
                hint="wait for its first checkpoint, or name a critic that is whole",
            )
        self._adapters.use(self._service.present)

    async def _subscribe(self, channel: str) -> None:
        """Serve what a run publishes, from its first critic that is fit; when the run is gone, Serve ends as well."""
        subscriber = Subscriber(
            RunChannel(channel),
            self._versions,
            build=partial(ServedCritic.of_state, device=self._device),
            replica=replica_name(),
        )

        async def keep_looking() -> None:
            try:
                await subscriber.keep_looking()
            except ChannelGoneError:
                await end_serve()

        try:
            await subscriber.first()
        except ChannelGoneError:
            await end_serve()
            raise
        self._following = asyncio.get_running_loop().create_task(keep_looking())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that answers this replica's requests."""
        return build_app(
            self._service,
            keys=self._keys,
            limits=self._settings.limits,
            metrics=self._metrics,
            echo_request_id=False,
            allowed_hosts=self._settings.allowed_hosts,
            close=self.close,
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Ray Serve asks each replica of a number that may change, for :class:`WaitingWork`."""
        waiting_s, busy = self._batcher.take_load()
        return {WAITING_S: waiting_s, BUSY: busy}

    async def close(self) -> None:
        """End, after the last request."""
        self._stop_following()
        await self._service.close()

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None


def build(args: dict[str, Any]) -> Application:
    """What ``serve deploy`` takes as ``import_path``.

    Args:
        args: ``ServeSettings`` as a mapping: ``args`` of the application in the YAML.

    Raises:
        ConfigError: If a setting is unknown or out of its bounds.
    """
    return application(settings_from(args))


def application(args: ServeSettings) -> Application:
    """The Serve application of a critic.

    Args:
        args: Its settings.
    """
    limits = args.limits
    threads = args.threads or share_of_cores(args.most_replicas)
    options: dict[str, Any] = {
        "name": DEPLOYMENT,
        # The replica's own queue is bounded and answers 429 at once, in the envelope. What comes on top of that and
        # of requests which are still being sent is refused by Serve.
        "max_ongoing_requests": 2 * limits.max_queued_requests + 64,
        "max_queued_requests": limits.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=1.0),
        "graceful_shutdown_timeout_s": args.drain_s,
        "graceful_shutdown_wait_loop_s": 0.2,
        "max_constructor_retry_count": 2,
        "user_config": args.source(),
        "ray_actor_options": {
            "num_cpus": args.cpus_per_replica,
            "num_gpus": args.gpus_per_replica,
            "runtime_env": {"env_vars": {**runtime_env(threads=threads)["env_vars"], **PACKED_ENV}},
        },
    }
    if args.max_replicas is None:
        options["num_replicas"] = args.num_replicas
    else:
        options["autoscaling_config"] = AutoscalingConfig(
            min_replicas=args.num_replicas,
            max_replicas=args.max_replicas,
            look_back_period_s=args.scaling.look_back_s,
            upscale_delay_s=args.scaling.up_after_s,
            downscale_delay_s=args.scaling.down_after_s,
            policy=AutoscalingPolicy(
                policy_function=WaitingWork,
                policy_kwargs={"target_wait_s": args.scaling.target_wait_s},
            ),
        )
    replica: Any = cast("Any", serve.ingress())(CriticReplica)
    return cast("Any", serve.deployment(**options))(replica).bind(args.for_replica())


# -- on a cluster: start it, deploy the critic, end it ------------------------------------------------------


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
        hint="deploy to it with serve deploy and a YAML, end it with serve shutdown, or unset RAY_ADDRESS",
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
            hint="gad-ray score --critic DIR tries the same critic without Serve",
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
