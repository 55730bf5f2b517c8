"""A Ray cluster of the tests' own: one node, started by hand as a user would, apart from every other cluster."""

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

from gad_ray.serving.proxy import CLUSTER_VARIABLES
from tests.processes import wait_until, wait_until_gone

_START_S = 120.0
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
    """One node started with ``ray start --head --block``: it ends with that process. Ray Serve has our guard there.

    Attributes:
        address: Of its control store, for RAY_ADDRESS.
        dashboard: URL at which jobs are submitted.
        directory: Everything that the cluster writes.
    """

    def __init__(self) -> None:
        # A short path: Ray makes Unix sockets below it, whose names may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="gad-", dir="/tmp"))
        self._log = self.directory / "start.log"
        command = ["ray", "start", "--head", "--block", "--port=0", "--dashboard-port=0"]
        command += ["--dashboard-agent-listen-port=0", "--num-cpus=2", "--object-store-memory=300000000"]
        command += [f"--temp-dir={self.directory / 'ray'}"]
        with self._log.open("wb") as log:
            # A session of its own: what ends the tests from the keyboard does not reach it.
            self._process = subprocess.Popen(
                command,
                # Nothing that runs here is worth 30 s of waiting for its end.
                env=ray_environment() | CLUSTER_VARIABLES | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        try:
            wait_until(self._is_up, what=f"the cluster, see {self._log}", deadline_s=_START_S)
            self.address = (self.directory / "ray" / "ray_current_cluster").read_text()
            match = re.search(r"127\.0\.0\.1:\d+", self._log.read_text())
            assert match is not None, self._log.read_text()
            self.dashboard = f"http://{match[0]}"
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the cluster's processes, and fail if one of them stays."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        wait_until_gone(self.directory)
        shutil.rmtree(self.directory)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        written = (self.directory / "ray" / "ray_current_cluster").exists()
        return written and "Ray runtime started" in self._log.read_text()
