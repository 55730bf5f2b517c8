"""A Ray cluster of the tests' own, started by hand as a user would, apart from every other cluster."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from gad_ray.serving.deployment.proxy import CLUSTER_VARIABLES
from tests.processes import wait_until, wait_until_gone

_START_S = 300.0
_PR_SET_PDEATHSIG = 1


def ray_environment() -> dict[str, str]:
    """The environment of programs that use Ray, with no cluster chosen.

    Tools of the environment that runs the tests are on the PATH, as after its activation.
    """
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Ray lets its workers wait for everybody else; these are what is waited for.
    environment["RAY_worker_niceness"] = "0"
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return environment


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the tests are gone, however they ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Cluster:
    """A node started with ``ray start --head --block``: it ends with that process. Ray Serve has our guard there.

    Attributes:
        address: Of its control store, for RAY_ADDRESS.
        dashboard: URL at which jobs are submitted.
        directory: Everything that the cluster writes.
    """

    def __init__(self) -> None:
        # A short path: Ray makes Unix sockets below it, whose names may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="gad-", dir="/tmp"))
        self._nodes: list[subprocess.Popen[bytes]] = []
        try:
            # Room for a real model's weights twice: what does not fit goes to the disk, where Ray takes none if it is
            # 95 % full.
            self._start(
                "--head",
                "--port=0",
                "--dashboard-port=0",
                f"--temp-dir={self.directory / 'ray'}",
                "--object-store-memory=2000000000",
            )
            self.address = (self.directory / "ray" / "ray_current_cluster").read_text()
            head = self._log(0).read_text()
            match = re.search(r"127\.0\.0\.1:\d+", head)
            assert match is not None, head
            self.dashboard = f"http://{match[0]}"
        except BaseException:
            self.stop()
            raise

    def add_node(self) -> None:
        """Start another node of the cluster, on this machine as well."""
        self._start(f"--address={self.address}", "--object-store-memory=300000000")

    def stop(self) -> None:
        """End the cluster's processes, and fail if one of them stays."""
        for node in reversed(self._nodes):
            node.send_signal(signal.SIGTERM)
        for node in self._nodes:
            try:
                node.wait(30)
            except subprocess.TimeoutExpired:
                node.kill()
        wait_until_gone(self.directory)
        shutil.rmtree(self.directory)

    def _log(self, number: int) -> Path:
        return self.directory / f"start-{number}.log"

    def _start(self, *options: str) -> None:
        number = len(self._nodes)
        command = ["ray", "start", "--block", *options, "--num-cpus=2", "--dashboard-agent-listen-port=0"]
        with self._log(number).open("wb") as log:
            # A session of its own: what ends the tests from the keyboard does not reach it.
            node = subprocess.Popen(
                command,
                # Nothing that runs here is worth 30 s of waiting for its end.
                env=ray_environment() | CLUSTER_VARIABLES | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._nodes.append(node)
        what = f"the cluster, see {self._log(number)}"
        wait_until(lambda: self._is_up(number), what=what, deadline_s=_START_S)

    def _is_up(self, number: int) -> bool:
        told = self._log(number).read_text()
        assert self._nodes[number].poll() is None, told
        written = (self.directory / "ray" / "ray_current_cluster").exists()
        return written and "Ray runtime started" in told
