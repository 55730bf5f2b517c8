"""The Ray Serve application: one deployment, whose replicas each hold the critic, its batcher and its guard.

    client ──► Serve's proxy ──► replica: guard → routes → service → batcher → critic

``build`` is what ``serve deploy`` takes as ``import_path``; ``gad-ray serve`` uses it as well.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from gad_ray.actors.process import runtime_env, share_of_cores
from gad_ray.serving.app import build_app
from gad_ray.serving.batcher import Batcher
from gad_ray.serving.keys import KeyRing, digests_from
from gad_ray.serving.served import ServedCritic
from gad_ray.serving.service import ScoringService
from gad_ray.serving.settings import ServeSettings
from gad_ray.serving.watch import ServingMetrics

DEPLOYMENT = "critic"

_QUEUE_SHARE = 0.5
"""Share of the queue's bound at which another replica is wanted."""


class CriticReplica:
    """One replica. Its constructor loads the critic and scores a first text: only then it is ready.

    Args:
        settings: ``ServeSettings`` as a mapping.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        from ray.util import metrics as ray_metrics

        self._settings = ServeSettings.model_validate(settings)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        device = torch.device(
            "cuda" if self._settings.gpus_per_replica and torch.cuda.is_available() else "cpu"
        )
        # Keys in the node's environment count too: so a YAML need not name any.
        digests = [*self._settings.key_digests, *digests_from(os.environ)]
        key_file = self._settings.key_file
        self._keys = KeyRing(digests, file=None if key_file is None else Path(key_file))
        self._metrics = ServingMetrics(cast("Any", ray_metrics))
        critic = ServedCritic.load(Path(self._settings.critic), device=device)
        limits = self._settings.limits
        batcher = Batcher(
            self._settings.batching,
            max_queued_tokens=limits.max_queued_tokens,
            max_queued_requests=limits.max_queued_requests,
            watcher=self._metrics,
        )
        self._service = ScoringService(critic, name=self._settings.name, limits=limits, batcher=batcher)
        self._metrics.version_served(fingerprint=critic.fingerprint, step=critic.step)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that answers this replica's requests."""
        return build_app(
            self._service,
            keys=self._keys,
            limits=self._settings.limits,
            metrics=self._metrics,
            echo_request_id=False,
        )

    async def __del__(self) -> None:
        """Serve calls it once the requests under way have ended."""
        if hasattr(self, "_service"):
            await self._service.close()


def build(args: ServeSettings) -> Application:
    """The Serve application of a critic.

    Args:
        args: Its settings; under ``args`` in the YAML of ``serve deploy``.
    """
    limits = args.limits
    threads = args.threads or share_of_cores(args.num_replicas)
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
        "ray_actor_options": {
            "num_cpus": args.cpus_per_replica,
            "num_gpus": args.gpus_per_replica,
            "runtime_env": runtime_env(threads=threads),
        },
    }
    if args.max_replicas is None:
        options["num_replicas"] = args.num_replicas
    else:
        options["autoscaling_config"] = AutoscalingConfig(
            min_replicas=args.num_replicas,
            max_replicas=max(args.max_replicas, args.num_replicas),
            target_ongoing_requests=max(1.0, _QUEUE_SHARE * limits.max_queued_requests),
        )
    replica: Any = cast("Any", serve.ingress())(CriticReplica)
    return cast("Any", serve.deployment(**options))(replica).bind(args.model_dump(mode="json"))
