"""The application behind a real HTTP server on a loopback port, in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.serving.application.app import build_app
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.keys import KeyRing
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.metrics import ServingMetrics
from gad_ray.serving.application.service import ScoringService
from tests.processes import wait_until
from tests.unit.serving.metric_library import MetricLibrary


@contextmanager
def listening(
    served: ServedCritic, *, metrics: MetricLibrary | None = None, limits: Limits, batching: BatchSettings
) -> Generator[str]:
    """The URL of a service that answers with a critic."""
    batcher = Batcher(
        batching,
        max_queued_tokens=limits.max_queued_tokens,
        max_queued_requests=limits.max_queued_requests,
    )
    service = ScoringService(served, name="critic", limits=limits, batcher=batcher)
    app = build_app(
        service,
        keys=KeyRing(),
        limits=limits,
        metrics=ServingMetrics(metrics or MetricLibrary()),
        echo_request_id=True,
        close=service.close,
    )
    with running(app) as url:
        yield url


@contextmanager
def running(app: Any) -> Generator[str]:
    """The URL of an ASGI application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the server", deadline_s=120.0)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
