"""The published YAML on a cluster that is there, by the commands that the documentation shows."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gad_ray.models.critic import CriticModel
from tests.cluster import Cluster, ray_environment
from tests.game import REPOSITORY
from tests.processes import wait_until
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
    first, second = (CriticModel.load(path) for path in deployed.critics)
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
