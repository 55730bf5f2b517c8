"""Servers in processes of their own: our endpoint by the command that a user types."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from gad_ray.actors.process import log_tail
from gad_ray.errors import GadError

_START_S = 600.0
_END_S = 90.0
_LOOK_EVERY_S = 0.2
_REPLICA = "ray::ServeReplica"
_PROXY = "ray::ProxyActor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers.

    Attributes:
        name: As tables call it.
        url: Where it listens.
        process: The one that was started; others may be below it.
        log: What it says.
    """

    name: str
    url: str
    process: psutil.Process
    log: Path

    def replicas(self) -> list[psutil.Process]:
        """The processes of our endpoint that hold a critic."""
        return self._titled(_REPLICA)

    def proxies(self) -> list[psutil.Process]:
        """Its processes that listen."""
        return self._titled(_PROXY)

    def _titled(self, title: str) -> list[psutil.Process]:
        return [child for child in self.process.children(recursive=True) if _title(child).startswith(title)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a server is started.

    Attributes:
        name: As tables call it.
        arguments: Program and arguments, without the port.
        ready: Path that is answered with 200 once requests are.
        environment: What is set besides.
        is_ray: It starts a Ray cluster, whose files need a place with a short name.
    """

    name: str
    arguments: Sequence[str]
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    is_ray: bool = False

    @contextmanager
    def running(self, log: Path) -> Generator[Server]:
        """Start it, and end it with the block.

        Args:
            log: File for what it says.

        Raises:
            GadError: If it does not come up.
        """
        port = _free_port()
        # Ray makes Unix sockets below its directory, whose names may have 107 bytes.
        scratch = Path(tempfile.mkdtemp(prefix="gad-", dir="/tmp" if self.is_ray else None))  # noqa: S108
        environment = {**os.environ, **self.environment}
        if self.is_ray:
            environment.pop("RAY_ADDRESS", None)
            environment |= _ray_environment(scratch)
        with log.open("wb") as file:
            child = subprocess.Popen(
                [*self.arguments, "--port", str(port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Ctrl-C is this process's business: it ends its servers itself.
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            self._wait(child, url + self.ready, log)
            yield Server(name=self.name, url=url, process=psutil.Process(child.pid), log=log)
        finally:
            _end(child)
            shutil.rmtree(scratch, ignore_errors=True)

    def _wait(self, child: subprocess.Popen[bytes], url: str, log: Path) -> None:
        ends = time.monotonic() + _START_S
        while child.poll() is None and time.monotonic() < ends:
            try:
                if httpx.get(url, timeout=5.0).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_LOOK_EVERY_S)
        how = (
            f"ended with {child.returncode}" if child.poll() is not None else f"was silent for {_START_S:g} s"
        )
        raise GadError(f"{self.name} {how} and said:\n{log_tail(log)}", where=str(log))


def endpoint(
    *,
    critic: Path | None = None,
    follow: Path | None = None,
    replicas: int = 1,
    threads: int,
    batch_tokens: int | None = None,
) -> Command:
    """``gad-ray serve`` on a cluster of its own.

    Args:
        critic: Directory of a critic; either this or ``follow``.
        follow: Directory of a run.
        replicas: Processes that share the requests.
        threads: Of each of them.
        batch_tokens: Tokens of one forward pass; the endpoint's own number when None.
    """
    source = ["--critic", str(critic)] if critic is not None else ["--follow", str(follow)]
    sizes = [] if batch_tokens is None else ["--batch-tokens", str(batch_tokens)]
    return Command(
        name="gad-ray serve",
        arguments=[
            *(sys.executable, "-m", "gad_ray", "serve", *source, *sizes),
            *("--replicas", str(replicas), "--threads", str(threads)),
        ],
        ready="/ready",
        is_ray=True,
    )


def _ray_environment(scratch: Path) -> dict[str, str]:
    """A cluster of this measurement's own, at the priority of what it is compared with."""
    return {
        "RAY_TMPDIR": str(scratch),
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it has started."""
    below = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    _, alive = psutil.wait_procs(below, timeout=_END_S / 3)
    for process in alive:
        process.kill()
