"""Servers in threads, for what is measured over HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvicorn

from gad_ray.bench.serve.servers import Server
from gad_ray.bench.serve.setting import Setting
from gad_ray.serving.app import build_app
from gad_ray.serving.batcher import Batcher, BatchSettings
from gad_ray.serving.keys import KeyRing
from gad_ray.serving.limits import Limits
from gad_ray.serving.served import ServedCritic
from gad_ray.serving.service import ScoringService
from gad_ray.serving.watch import ServingMetrics
from tests.unit.serving.metric_library import MetricLibrary


@contextmanager
def listening(app: Any) -> Generator[Server]:
    """An ASGI application on a loopback port."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(512)
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            httpx.get(f"{url}/health", timeout=30.0)
            yield Server(name="here", url=url, process=psutil.Process(), log=Path("log"))
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serving(critic: ServedCritic, **limits: Any) -> Generator[Server]:
    """Our endpoint, without Ray."""
    bounds = Limits(**limits)
    batcher = Batcher(
        BatchSettings(),
        max_queued_tokens=bounds.max_queued_tokens,
        max_queued_requests=bounds.max_queued_requests,
    )
    service = ScoringService(critic, name="critic", limits=bounds, batcher=batcher)
    metrics = ServingMetrics(MetricLibrary())
    app = build_app(
        service, keys=KeyRing(), limits=bounds, metrics=metrics, echo_request_id=True, close=service.close
    )
    with listening(app) as server:
        yield server


def toy_setting(critic: Path, out: Path, **changed: Any) -> Setting:
    sizes: dict[str, Any] = {
        "threads": 1,
        "batch_tokens": 512,
        "pairs": 12,
        "longest": 24,
        "each": 4,
        "concurrency": 4,
        "rounds": 2,
        "seconds": 1.0,
        "minutes": 0.02,
        "swap_every_s": 0.2,
        "kill_every_s": 600.0,
        "seed": 0,
        "tell": lambda line: None,
    }
    return Setting(critic=critic, out=out, **{**sizes, **changed})
