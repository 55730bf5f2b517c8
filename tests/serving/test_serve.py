"""The command as a user runs it: a real Ray Serve application, asked over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from benchmarks.parity.__main__ import app as parity
from gad_ray import cli
from gad_ray.cli import main
from gad_ray.client.score_client import ScoreClient
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.critic_export import load_critic
from tests.cluster import ray_environment
from tests.game import REPOSITORY
from tests.processes import titled, wait_until, wait_until_gone
from tests.tiny import make_tiny_model
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, critic_config, critic_learner, pair
from tests.unit.serving.lora import make_lora_learner

START_S, END_S = 120.0, 60.0
KEY = "key-" + "k" * 30
PAIRS = [pair(p, r) for p, t, s in zip(PROMPTS, TEACHER, STUDENT, strict=True) for r in (t, *s)]


class Served:
    """``gad-ray serve`` with a cluster of its own."""

    def __init__(self, run: Path, key_file: Path, adapters: dict[str, Path] | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # Ray's sockets need a short path; RAY_TMPDIR also marks all processes that the command starts.
        self.scratch = Path(tempfile.mkdtemp(prefix="gad-", dir="/tmp"))
        self._log = self.scratch / "log"
        command = [sys.executable, "-m", "gad_ray", "serve", "--follow", str(run), "--port", str(self.port)]
        command += ["--key-file", str(key_file), "--threads", "1", "--replicas", "2"]
        for name, place in (adapters or {}).items():
            command += ["--adapter", f"{name}={place}"]
        command += ["--max-adapters", "1"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**ray_environment(), "RAY_TMPDIR": str(self.scratch)},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            wait_until(self._is_ready, what="the service", deadline_s=START_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it in good order; fails if a process stays."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(END_S)
        wait_until_gone(self.scratch)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def written(self) -> str:
        """Everything that Ray and Serve have logged."""
        kinds = (".log", ".out", ".err", ".json")
        files = [path for path in self.scratch.rglob("*") if path.is_file() and path.suffix in kinds]
        return "\n".join([self.log, *(path.read_text(errors="replace") for path in files)])

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return "serving" in self.log


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapters(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRA critics on the backbone of the critic that is served, and one that has been damaged."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("law", "code", "bad")):
        make_lora_learner(model_dir, seed=seed).export(root / name)
    (root / "bad" / "adapter" / "adapter_model.safetensors").write_bytes(b"no tensors")
    return {name: root / name for name in ("law", "code", "bad")}


@pytest.fixture(scope="module")
def learner(model_dir: Path) -> CriticLearner:
    made = critic_learner(critic_config(model_dir, max_tokens=200))
    with torch.no_grad():
        made.model.head.weight.mul_(20.0)
    return made


@pytest.fixture(scope="module")
def run(learner: CriticLearner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run has left: its settings and its critic."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "config.yaml").write_text("{}\n")
    learner.export(directory / "exports" / "critic")
    return directory


@pytest.fixture(scope="module")
def critic_dir(run: Path) -> Path:
    return run / "exports" / "critic"


@pytest.fixture(scope="module")
def served(run: Path, adapters: dict[str, Path]) -> Iterator[Served]:
    (run / "keys").write_text(f"{KEY}\n")
    service = Served(run, run / "keys", adapters)
    try:
        yield service
    finally:
        service.stop()


def post(served: Served, body: Any, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(
        f"{served.url}/v1/score",
        json=body,
        headers={"authorization": f"Bearer {KEY}", **named},
        timeout=300.0,
    )


def main_done(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert not left.value.code


def test_scores_over_http_are_those_of_the_critic_here(served: Served, critic_dir: Path) -> None:
    critic = load_critic(critic_dir)
    wanted = critic.score(PAIRS, micro_batch_tokens=8192)
    with ScoreClient(served.url, key=KEY) as client:
        together = client.score_pairs(PAIRS)
        alone = [client.score_pairs([one])[0] for one in PAIRS]
    for found in (together, alone):
        np.testing.assert_allclose([score.value for score in found], wanted, atol=1e-4, rtol=0)
        assert {score.fingerprint for score in found} == {critic.fingerprint().digest}


def test_lora_critics_on_the_same_backbone_are_further_models_on_both_replicas(
    served: Served, adapters: dict[str, Path], critic_dir: Path
) -> None:
    alone = {name: load_critic(adapters[name]) for name in ("law", "code")}
    alone["critic"] = load_critic(critic_dir)
    wanted = {name: critic.score(PAIRS, micro_batch_tokens=8192) for name, critic in alone.items()}
    body = {"queries": [p.messages[0].content for p in PAIRS], "documents": [p.response for p in PAIRS]}
    with ThreadPoolExecutor(max_workers=6) as pool:
        asked = [(name, pool.submit(post, served, {**body, "model": name})) for name in [*alone] * 8]
    for name, future in asked:
        answer = future.result().json()
        assert (answer["model"], answer["model_version"]["fingerprint"]) == (
            name,
            alone[name].fingerprint().digest,
        )
        np.testing.assert_allclose([one["score"] for one in answer["data"]], wanted[name], atol=1e-4, rtol=0)
    bad = post(served, {**body, "model": "bad"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (404, "model_refused")
    listed = httpx.get(f"{served.url}/v1/models", headers={"authorization": f"Bearer {KEY}"}).json()
    assert [card["id"] for card in listed["data"]] == ["critic", "law", "code", "bad"]


def test_all_ways_to_a_score_give_the_same(
    served: Served, critic_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GAD_RAY_SERVE_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        cli.run(parity, "parity", ["--critic", str(critic_dir), "--count", "24", "--endpoint", served.url])
    assert not left.value.code
    assert "the scores are the same" in capsys.readouterr().out


def test_a_file_is_scored_by_an_endpoint_as_by_a_directory(
    served: Served, critic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"content": p, "response": t, "id": i} for i, (p, t) in enumerate(zip(PROMPTS, TEACHER, strict=True))
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("GAD_RAY_SERVE_KEY", KEY)

    def scored(*by: str) -> list[dict[str, Any]]:
        out = tmp_path / "out.jsonl"
        main_done(["score", *by, "--in", str(tmp_path / "in.jsonl"), "--out", str(out)])
        return [json.loads(line) for line in out.read_text().splitlines()]

    here, there = scored("--critic", str(critic_dir)), scored("--endpoint", served.url)
    for mine, theirs in zip(here, there, strict=True):
        assert mine.pop("score") == pytest.approx(theirs.pop("score"), abs=1e-4)
        assert mine == theirs


def test_what_ray_serves_proxy_cannot_take_is_taken_or_refused_in_the_envelope(served: Served) -> None:
    asked = {"queries": "Hi", "documents": "a"}
    assert post(served, asked, x_request_id="mine-1").headers["x-request-id"] == "mine-1"
    assert post(served, asked, x_request_timeout_seconds="0.000001").status_code == 200
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.settimeout(30.0)
        raw.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx-request-id: \xff\xfe\r\nconnection: close\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
    bare = httpx.post(f"{served.url}/v1/score", json=asked)
    assert (bare.status_code, bare.json()["error"]["code"]) == (401, "invalid_api_key")
    long = post(served, {**asked, "user": "x" * 5_000_000})
    assert (long.status_code, long.json()["error"]["code"]) == (413, "body_too_long")


def test_a_new_critic_of_the_run_takes_over_without_a_lost_request_and_a_bad_one_does_not(
    served: Served, learner: CriticLearner, critic_dir: Path
) -> None:
    old = learner.fingerprint().digest
    with torch.no_grad():
        learner.model.head.weight.mul_(2.0)
    new = learner.fingerprint().digest
    body = {"queries": PROMPTS[0], "documents": [TEACHER[0], "No."]}
    answers: list[httpx.Response] = []

    def both_have_it() -> bool:
        """Two replicas answer in turn or by chance: twenty times the same fingerprint are both of them."""
        found = [post(served, body) for _ in range(20)]
        answers.extend(found)
        return {answer.json()["model_version"]["fingerprint"] for answer in found} == {new}

    learner.export(critic_dir)
    wait_until(both_have_it, what="the new critic", deadline_s=300.0)
    scores = {
        fingerprint: [a.json()["data"][0]["score"] for a in answers if fingerprint in a.text]
        for fingerprint in (old, new)
    }
    assert all(answer.status_code == 200 for answer in answers)
    assert len(scores[old]) + len(scores[new]) == len(answers), "each names one of the two"
    for fingerprint, factor in ((old, 1.0), (new, 2.0)):
        np.testing.assert_allclose(scores[fingerprint], scores[old][0] * factor, atol=1e-4, rtol=0)

    with torch.no_grad():
        learner.model.head.weight.fill_(torch.nan)
    learner.export(critic_dir)
    wait_until(lambda: served.written().count("is refused") >= 2, what="the refusals", deadline_s=300.0)
    assert both_have_it()


def test_a_killed_replica_costs_no_request_its_answer(served: Served) -> None:
    replicas = titled(served.scratch, "ServeReplica")
    assert len(replicas) == 2
    body = {"queries": "Hi", "documents": ["a" * 50] * 3}
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = [pool.submit(lambda: post(served, body).status_code) for _ in range(60)]
        replicas[0].send_signal(signal.SIGKILL)
        assert [answer.result() for answer in answers] == [200] * 60


def test_a_signal_ends_it_after_the_requests_under_way_and_leaves_nothing_behind(served: Served) -> None:
    content = json.dumps({"queries": "Hi", "documents": "because of the air"}).encode()
    head = (
        f"POST /v1/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\nexpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.settimeout(60.0)
        raw.sendall(head.encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 100")
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(served), what="the refusal of new requests", deadline_s=300.0)
        raw.sendall(content)
        assert raw.recv(65536).startswith(b"HTTP/1.1 200")
    assert served.process.wait(END_S) == 0, served.log
    written = served.written()
    assert '"route": "/v1/score"' in written.replace("\\", "")
    assert KEY not in written
    assert "because of the air" not in written
    wait_until_gone(served.scratch)


def refuses(served: Served) -> bool:
    answer = httpx.get(f"{served.url}/ready", timeout=300.0)
    return answer.status_code == 503 and "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines, and no key is set"),
        (["--host", "192.0.2.200"], "no key is set"),
        (["--critic", "/nowhere"], "there is no directory /nowhere"),
        (["--critic", "/tmp"], "/tmp: is not an exported critic"),
    ],
)
def test_what_cannot_be_served_there_is_told_before_anything_starts(
    critic_dir: Path,
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("GAD_RAY_SERVE_KEYS", raising=False)
    with pytest.raises(SystemExit) as left:
        main(["serve", "--critic", str(critic_dir), *arguments])
    assert left.value.code == 2
    assert told in capsys.readouterr().err.replace("\n", " ")


def test_a_port_in_use_is_told_before_anything_starts(
    critic_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit) as left:
            main(["serve", "--critic", str(critic_dir), "--port", port])
    assert left.value.code == 2
    assert "cannot be listened on" in capsys.readouterr().err
