"""A run that serves its critic while it goes: what HTTP answers is what the run's own critics give."""

from __future__ import annotations

import json
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gad_ray.batch import Fingerprint
from gad_ray.config import load_config
from gad_ray.critics.store import FINGERPRINT_FILE, open_critic
from gad_ray.models.critic import CriticModel
from tests.cluster import Cluster
from tests.game import OF_AN_ENDPOINT, Game, Outcome, Running, make_rows
from tests.processes import describe, processes_of, titled, wait_until
from tests.unit.builders import pair

SERVED_AT = "the critic is served at"
ASKED = [(row["content"], row["teacher_response"]) for row in make_rows(3)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    fingerprint: str
    step: int
    scores: list[float]


class Client:
    """Asks a run's endpoint for the same scores again and again."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0)
        self.answers: list[Answer] = []
        self.statuses: set[int] = set()

    def ask(self) -> Answer | None:
        """One answer; None where nobody answers, or that it is too early."""
        body = {"queries": [q for q, _ in ASKED], "documents": [d for _, d in ASKED]}
        try:
            got = self._http.post("/v1/score", json=body)
        except httpx.TransportError:
            return None
        self.statuses.add(got.status_code)
        if got.status_code != 200:
            return None
        told: dict[str, Any] = got.json()
        version = told["model_version"]
        scores = [item["score"] for item in told["data"]]
        self.answers.append(Answer(version["fingerprint"], version["step"], scores))
        return self.answers[-1]

    def as_another_host(self) -> httpx.Response:
        """What the endpoint says to a request for another name."""
        body = {"queries": [ASKED[0][0]], "documents": [ASKED[0][1]]}
        return self._http.post("/v1/score", json=body, headers={"host": f"evil.example:{self.port}"})

    def until_newer(self, run: Running, step: int) -> int:
        """Ask until a later critic answers; returns its step."""
        run.wait_for(
            lambda: (got := self.ask()) is not None and got.step > step, f"a critic later than step {step}"
        )
        return self.answers[-1].step


@dataclass(frozen=True)
class Served:
    """What came of it.

    Attributes:
        client: Who asked all the time.
        num_before: Its answers before the run was killed.
        outcome: How the resumed run ended.
        rebound: What a page gets that had its own name turned to loopback.
    """

    client: Client
    num_before: int
    outcome: Outcome
    rebound: httpx.Response


def kill_replica(cluster: Cluster) -> None:
    replicas = titled(cluster.directory, "ServeReplica")
    assert len(replicas) == 1
    replicas[0].send_signal(signal.SIGKILL)


def wait_until_nobody_serves(cluster: Cluster, *, deadline_s: float) -> None:
    names = ("ServeReplica", "ServeController", "ProxyActor", "ray::Channel")
    wait_until(
        lambda: not any(name in describe(processes_of(cluster.directory)) for name in names),
        what="the end of all that served",
        deadline_s=deadline_s,
    )


@pytest.fixture(scope="module")
def served(game: Game, ray_cluster: Cluster) -> Served:
    """A run that is asked while it goes and loses its replica, is killed when a new one has taken its place, and goes on."""
    client = Client(free_port())
    overrides = (
        "serve.enabled=true",
        f"serve.port={client.port}",
        "stages.adversarial.steps=100000",
        "checkpoint={every: 1, keep: 100000, at_end: true}",
        "evaluation.every=0",
    )
    run = game.start("online", *overrides)
    first = client.until_newer(run, -1)
    later = client.until_newer(run, first)
    rebound = client.as_another_host()
    kill_replica(ray_cluster)
    last = client.until_newer(run, later)
    num_before = len(client.answers)
    assert run.kill().code == -signal.SIGKILL
    # Nobody is left who could tell them: they have to notice.
    wait_until_nobody_serves(ray_cluster, deadline_s=60.0)
    run = game.start("online", *overrides, resume="auto")
    client.until_newer(run, last)
    # The restored critic may be newer already, and answer before the run has seen that it does.
    run.wait_for(lambda: run.said(SERVED_AT), "the word that it is served")
    run.terminate()
    return Served(client, num_before, run.wait(), rebound)


def test_every_metric_of_the_endpoint_is_logged(served: Served) -> None:
    assert {name for row in served.outcome.metrics for name in row} >= OF_AN_ENDPOINT


def critics(root: Path) -> dict[str, tuple[int, Path]]:
    """Fingerprint → steps and place, of every checkpoint of a run."""
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted((root / "checkpoints").iterdir()):
        parts = json.loads((path / "critic" / FINGERPRINT_FILE).read_text())
        found[Fingerprint(**parts).digest] = (int(path.name.removeprefix("step-")), path)
    return found


def test_every_answer_names_a_critic_of_the_run_and_has_its_scores(served: Served) -> None:
    config = load_config(str(served.outcome.root / "config.yaml"))
    untrained = CriticModel.build(
        config.critic.model,
        pooling=config.critic.pooling,
        max_tokens=config.critic.max_tokens,
        seed=config.seed,
    )
    known = critics(served.outcome.root)
    pairs = [pair(prompt, response) for prompt, response in ASKED]
    wanted: dict[str, Any] = {}
    for answer in served.client.answers:
        if answer.fingerprint not in wanted:
            model = untrained
            if answer.step > 0:
                step, path = known[answer.fingerprint]
                opened = open_critic(path)
                assert answer.step == opened.step == step
                model = opened.model
            assert model.fingerprint().digest == answer.fingerprint
            wanted[answer.fingerprint] = model.score(pairs, micro_batch_tokens=8192)
        np.testing.assert_allclose(answer.scores, wanted[answer.fingerprint], atol=1e-5, rtol=0)
    assert len(wanted) >= 3
    steps = [answer.step for answer in served.client.answers]
    for told in (steps[: served.num_before], steps[served.num_before :]):
        assert told == sorted(told), "a later answer is never of an earlier critic"
    assert steps[served.num_before] > 0, "the first answer of a run that goes on is of the restored critic"


def test_a_page_whose_name_was_turned_to_loopback_reads_no_scores(served: Served) -> None:
    assert served.rebound.status_code == 403
    assert served.rebound.json()["error"]["code"] == "host_not_allowed"


def test_without_a_replica_requests_are_told_to_come_again(served: Served) -> None:
    assert served.client.statuses <= {200, 503}


def test_the_run_ends_as_any_other_and_leaves_nothing_on_the_cluster(
    served: Served, ray_cluster: Cluster
) -> None:
    assert served.outcome.code == 128 + signal.SIGTERM
    assert SERVED_AT in served.outcome.out
    wait_until_nobody_serves(ray_cluster, deadline_s=30.0)
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", served.client.port))


def test_what_was_published_is_in_the_metrics_and_cost_the_step_next_to_nothing(served: Served) -> None:
    numbers = {int(digest[:12], 16): step for digest, (step, _) in critics(served.outcome.root).items()}
    rows = [row for row in served.outcome.metrics if row.get("serve/published_step", 0) > 0]
    assert rows
    for row in rows:
        assert numbers[int(row["serve/published_fingerprint"])] == row["serve/published_step"] <= row["step"]
        assert row.get("serve/served_step", 0) <= row["serve/published_step"]
        assert row["serve/published_bytes"] > 0
    assert all("timing_s/publish" in row for row in served.outcome.metrics)
