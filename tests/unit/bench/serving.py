"""Servers in threads, for what is measured over HTTP."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from gad_ray.bench.serve.servers import Server
from gad_ray.bench.serve.setting import Setting
from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.serving.application.loaded_critic import ServedCritic
from tests.unit.serving.listening import listening as served_at
from tests.unit.serving.listening import running


@contextmanager
def listening(app: Any) -> Generator[Server]:
    """An ASGI application on a loopback port."""
    with running(app) as url:
        yield _server(url)


@contextmanager
def serving(critic: ServedCritic, **limits: Any) -> Generator[Server]:
    """Our endpoint, without Ray."""
    with served_at(critic, limits=Limits(**limits), batching=BatchSettings()) as url:
        yield _server(url)


def _server(url: str) -> Server:
    return Server(name="here", url=url, process=psutil.Process(), log=Path("log"))


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
