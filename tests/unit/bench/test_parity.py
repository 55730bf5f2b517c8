"""The comparison of scores from training, a command and HTTP, with a small critic behind a real HTTP server."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from benchmarks.parity.__main__ import app
from benchmarks.parity.pairs import default_pairs, read_pairs
from benchmarks.parity.paths import Scored, in_batches
from benchmarks.parity.study import Parity, ParityStudy
from gad_ray.cli import run
from gad_ray.client.score_client import ScoreClient
from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.critics.store import open_critic
from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.errors import DataError, GadError
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import TokenRow
from gad_ray.serving.application.loaded_critic import RowScore, ServedCritic
from tests.unit.builders import critic_config, critic_learner, pair
from tests.unit.serving.listening import listening

KINDS = (" the ", "的", "😀", "\n    ")


@pytest.fixture(scope="module")
def directory(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A critic for texts of up to 500 tokens."""
    learner = critic_learner(critic_config(tied_model, max_tokens=500))
    with torch.no_grad():
        learner.model.head.weight.mul_(20.0)
    place = tmp_path_factory.mktemp("parity") / "critic"
    learner.export(place)
    return place


@pytest.fixture(scope="module")
def opened(directory: Path) -> ValueHeadCritic:
    return open_critic(directory)


class Off(ServedCritic):
    """Forgets to score the first of several rows by itself."""

    def score_rows(self, rows: Sequence[TokenRow]) -> list[RowScore]:
        found = super().score_rows(rows)
        return found if len(rows) < 2 else [RowScore(found[-1].score, found[0].values), *found[1:]]


def study(directory: Path, url: str, **changed: Any) -> Parity:
    settings: dict[str, Any] = {
        "critic": directory,
        "pairs": None,
        "count": 40,
        "replicas": (),
        "endpoints": (url,),
        "key_variable": "UNSET",
        "threads": 1,
        "tolerance": 1e-4,
        "seed": 0,
        "tell": lambda line: None,
    }
    return ParityStudy(**{**settings, **changed}).run()


def test_generated_pairs_are_of_four_kinds_and_of_one_token_up_to_what_the_critic_takes(
    opened: ValueHeadCritic,
):
    encoder = opened.model.encoder
    pairs = default_pairs(encoder, 120, seed=0)
    assert pairs == default_pairs(encoder, 120, seed=0)
    assert len(set(pairs)) == 120
    lengths = sorted(len(encoder.chat.response_ids(pair.response)) for pair in pairs)
    assert lengths[0] == 1
    assert lengths[-1] > 300
    assert max(len(encoder.encode(pair)) for pair in pairs) <= 500
    for mark in KINDS:
        assert sum(mark in pair.response for pair in pairs) >= 5, mark


@pytest.mark.study
def test_all_ways_give_the_same_scores_and_the_command_says_so(
    directory: Path,
    opened: ValueHeadCritic,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", "200")
    served = ServedCritic(opened)
    with (
        listening(served, limits=Limits(), batching=BatchSettings(max_batch_tokens=2000)) as url,
        pytest.raises(SystemExit) as left,
    ):
        run(app, "parity", ["--critic", str(directory), "--count", "40", "--endpoint", url])
    told = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0, told
    assert "the scores are the same" in told
    for way in ("training", "gad-ray score", "HTTP, one by one", "HTTP, random batches"):
        assert way in told


def test_scores_that_are_apart_are_told_and_are_a_failure(
    directory: Path, opened: ValueHeadCritic, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("benchmarks.parity.study.by_command", lambda critic, pairs, scratch: reference)
    with listening(Off(opened), limits=Limits(), batching=BatchSettings()) as url:
        with torch.no_grad():
            pairs = default_pairs(opened.model.encoder, 40, seed=0)
            reference = study_of(opened.model, pairs)
        found = study(directory, url)
    by_way = {scored.way: found.furthest(scored) for scored in found.ways}
    assert by_way["HTTP, one by one"] <= 1e-4 < by_way["HTTP, random batches"]
    assert not found.holds


def study_of(model: CriticModel, pairs: Any) -> Any:
    return Scored(way="gad-ray score", scores=model.score(pairs, micro_batch_tokens=4096))


@pytest.mark.parametrize("apart", [0.0, 1e-7])
def test_equal_pairs_of_one_request_are_counted_and_those_that_are_apart(apart: float):
    """Also where requests are too large for the endpoint, or it is full at first."""
    pairs = [pair("Hi", "a" * n) for n in range(1, 301)]
    sizes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        documents = json.loads(request.content)["documents"]
        sizes.append(len(documents))
        if len(sizes) == 1:
            return httpx.Response(429, headers={"retry-after": "0"})
        if len(documents) > 20:
            status, code = (
                (408, "deadline_exceeded") if len(documents) > 30 else (413, "deadline_unreachable")
            )
            return httpx.Response(status, json={"error": {"message": "too much", "code": code}})
        scores = [
            {"index": i, "score": len(d) + apart * i, "truncated": False} for i, d in enumerate(documents)
        ]
        version = {"fingerprint": "f" * 64, "step": 1}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        shared = {"truncated": False, "usage": usage, "model_version": version}
        told = {"id": "a", "created": 1, "model": "critic", "data": scores, **shared}
        return httpx.Response(200, json=told)

    async def run() -> Scored:
        transport = httpx.MockTransport(answer)
        async with ScoreClient("http://endpoint", async_transport=transport, jitter=lambda: 0.0) as client:
            return await in_batches(client, "f" * 64, pairs, where="HTTP", seed=0)

    found = asyncio.run(run())
    np.testing.assert_allclose(found.scores, np.arange(1, 301), rtol=1e-6)
    assert max(sizes) > 30
    assert found.num_repeated > 10
    assert found.num_unequal == (found.num_repeated if apart else 0)


def test_another_critic_at_the_endpoint_is_refused(
    directory: Path, served_other: ServedCritic, monkeypatch: pytest.MonkeyPatch, opened: ValueHeadCritic
):
    monkeypatch.setattr(
        "benchmarks.parity.study.by_command", lambda critic, pairs, scratch: study_of(opened.model, pairs)
    )
    with (
        listening(served_other, limits=Limits(), batching=BatchSettings()) as url,
        pytest.raises(GadError, match="answered with another critic"),
    ):
        study(directory, url, count=3)


@pytest.fixture
def served_other(untied_model: Path, tmp_path: Path) -> ServedCritic:
    critic_learner(critic_config(untied_model, max_tokens=500)).export(tmp_path / "other")
    return ServedCritic.load(tmp_path / "other")


def test_pairs_of_a_file_that_are_too_long_are_counted_and_left_out(opened: ValueHeadCritic, tmp_path: Path):
    rows = [{"content": "Hi", "response": "fine " * n} for n in (1, 2, 400)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs, left_out = read_pairs(file, opened.model.encoder, count=500, seed=0)
    assert ([pair.response for pair in pairs], left_out) == (["fine ", "fine fine "], 1)
    assert len(read_pairs(file, opened.model.encoder, count=1, seed=0)[0]) == 1
    file.write_text(json.dumps(rows[2]) + "\n")
    with pytest.raises(DataError, match="no pair is left"):
        read_pairs(file, opened.model.encoder, count=500, seed=0)


def test_a_line_of_a_file_ends_where_its_json_does(opened: ValueHeadCritic, tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    row = {"content": "Hi", "response": "one\u2028two"}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n{\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.jsonl:2.*not JSON"):
        read_pairs(file, opened.model.encoder, count=500, seed=0)
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_pairs(file, opened.model.encoder, count=500, seed=0)[0][0].response == "one\u2028two"
    with pytest.raises(DataError, match="cannot be opened"):
        read_pairs(tmp_path / "none.jsonl", opened.model.encoder, count=500, seed=0)
