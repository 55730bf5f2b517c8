"""The published YAML on a cluster that is there, by the commands that the documentation shows."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from gad_ray.models.critic_export import load_critic
from gad_ray.models.onednn_linear import PACKED_ENV
from tests.cluster import Cluster, ray_environment
from tests.game import REPOSITORY
from tests.processes import titled, wait_until
from tests.tiny import make_tiny_model
from tests.unit.builders import critic_config, critic_learner, pair

START_S = 240.0
PUBLISHED = (REPOSITORY / "deployments" / "serve.yaml").read_text()
SWAP = PUBLISHED.partition("name it here and deploy again:\n")[2].replace("    # ", "    ")
"""What the published YAML shows, as a comment, for another critic without a restart."""

DOCUMENTED = (REPOSITORY / "docs" / "serving.md").read_text()


def replaced(text: str, by: Mapping[str, str]) -> str:
    """A text with what is to be one's own in it; each thing stands there once."""
    for before, after in by.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


@dataclass(frozen=True)
class Deployed:
    """A cluster on which the published YAML is deployed."""

    cluster: Cluster
    critics: tuple[Path, Path]
    yaml: Path
    port: int

    def deploy(self, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """``serve deploy``, told the cluster's dashboard."""
        self.yaml.write_text(text)
        return subprocess.run(
            ["serve", "deploy", str(self.yaml)],
            env=ray_environment() | {"RAY_DASHBOARD_ADDRESS": self.cluster.dashboard} | variables,
            capture_output=True,
            text=True,
            timeout=START_S,
        )

    def curl(self, command: str) -> Any:
        """The answer to a command of the documentation; None if there is none yet."""
        mine = command.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace("curl ", "curl -s ")
        done = subprocess.run(["bash", "-c", mine], capture_output=True, text=True, timeout=START_S)
        return json.loads(done.stdout) if done.stdout.startswith("{") else None

    def replicas(self) -> dict[int, int]:
        """Its replicas' process ids, and that of the node of each."""
        return {one.pid: one.ppid() for one in titled(self.cluster.directory, "ServeReplica")}

    @contextmanager
    def loaded(self, body: Any, *, clients: int) -> Iterator[None]:
        """Clients that ask without pause while in the block; each is answered, or told at once to come again."""
        over, answered = threading.Event(), threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=300.0) as client:
                while not over.is_set():
                    answer = client.post("/v1/score", json=body)
                    assert answer.status_code in (200, 429), answer.text
                    if answer.status_code == 429:
                        over.wait(float(answer.headers["retry-after"]))
                    else:
                        answered.set()

        with ThreadPoolExecutor(max_workers=clients) as pool:
            asking: list[Future[None]] = [pool.submit(ask) for _ in range(clients)]
            try:
                yield
            finally:
                over.set()
        for future in asking:
            future.result()
        assert answered.is_set()

    def serves(self, fingerprint: str) -> bool:
        """Whether it answers, and with this critic."""
        told: Mapping[str, Any] | None = self.curl("curl 127.0.0.1:8000/ready")
        return told is not None and told.get("model_version", {}).get("fingerprint") == fingerprint


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    directory = tmp_path_factory.mktemp("deployed")
    for seed in (0, 1):
        model = make_tiny_model(directory / f"model-{seed}", seed=seed)
        critic_learner(critic_config(model, max_tokens=200)).export(directory / f"critic-{seed}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    cluster = Cluster()
    try:
        yield Deployed(
            cluster, (directory / "critic-0", directory / "critic-1"), directory / "serve.yaml", port
        )
    finally:
        cluster.stop()


def test_the_published_yaml_is_deployed_and_scored_as_the_documentation_shows(deployed: Deployed) -> None:
    first, second = (load_critic(path) for path in deployed.critics)
    text = replaced(
        PUBLISHED,
        {
            "critic: /srv/gad-ray/critic\n": f"critic: {deployed.critics[0]}\n",
            "port: 8000": f"port: {deployed.port}",
        },
    )
    refused = deployed.deploy(text, RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode != 0
    assert "token" in (refused.stdout + refused.stderr).lower()
    done = deployed.deploy(text)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: deployed.serves(first.fingerprint().digest), what="the service", deadline_s=START_S)

    (replica,) = deployed.replicas()
    given = psutil.Process(replica).environ()
    # Both are read when a process begins: what is set later has no effect.
    assert {name: given.get(name) for name in PACKED_ENV} == PACKED_ENV
    assert int(given["MALLOC_TRIM_THRESHOLD_"]) > int(given["MALLOC_MMAP_THRESHOLD_"]) > 0

    (command,) = re.findall(r"^ *(curl 127\.0\.0\.1:8000/v1/score.*\\\n.*)$", DOCUMENTED, re.MULTILINE)
    asked = json.loads(command.partition("-d '")[2].rstrip("'"))
    pairs = [pair(asked["queries"], document) for document in asked["documents"]]
    for critic in (first, second):
        answer = deployed.curl(command)
        assert answer["model_version"]["fingerprint"] == critic.fingerprint().digest
        np.testing.assert_allclose(
            [item["score"] for item in answer["data"]],
            critic.score(pairs, micro_batch_tokens=8192),
            atol=1e-5,
            rtol=0,
        )
        if critic is first:
            swapped = deployed.deploy(
                text + replaced(SWAP, {"/srv/gad-ray/another-critic": str(deployed.critics[1])})
            )
            assert swapped.returncode == 0, swapped.stdout + swapped.stderr
            wait_until(
                lambda: deployed.serves(second.fingerprint().digest), what="the swap", deadline_s=START_S
            )


def test_while_work_waits_another_node_gets_a_replica_and_gives_it_up_again(deployed: Deployed) -> None:
    deployed.cluster.add_node()
    scaling = "{target_wait_s: 0.05, up_after_s: 0.0, down_after_s: 2.0}"
    done = deployed.deploy(
        replaced(
            PUBLISHED,
            {
                "critic: /srv/gad-ray/critic\n": f"critic: {deployed.critics[0]}\n",
                "port: 8000": f"port: {deployed.port}",
                # A node has two cores: a second replica finds room on the other one only.
                "cpus_per_replica: 1.0": "cpus_per_replica: 1.5",
                "# max_replicas: 8": "max_replicas: 2",
                "# scaling: {target_wait_s: 5.0, up_after_s: 10.0, down_after_s: 300.0}": f"scaling: {scaling}",
            },
        )
    )
    assert done.returncode == 0, done.stdout + done.stderr
    fingerprint = load_critic(deployed.critics[0]).fingerprint().digest
    wait_until(
        lambda: deployed.serves(fingerprint) and len(deployed.replicas()) == 1,
        what="the service",
        deadline_s=START_S,
    )
    little = {"queries": "Hi", "documents": ["a"]}
    much = {"queries": [f"What is {n}?" for n in range(100)], "documents": ["because " * 12] * 100}
    with deployed.loaded(little, clients=1):
        with deployed.loaded(much, clients=6):
            wait_until(
                lambda: len(set(deployed.replicas().values())) == 2, what="two nodes", deadline_s=START_S
            )
        wait_until(lambda: len(deployed.replicas()) == 1, what="the end of one", deadline_s=START_S)
