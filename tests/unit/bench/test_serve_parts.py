"""The parts of the measurement at toy size: what they count, and that what is wrong would be counted."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from benchmarks.serve.overload import overload
from benchmarks.serve.page import PARTS, load_page
from benchmarks.serve.peers import RewardShape, as_classifier
from benchmarks.serve.reward_server import build_app
from benchmarks.serve.swaps import SWAPS, FollowedRun, Trial, make_versions, offline_scores
from gad_ray.bench.serve.bare import BareForward
from gad_ray.bench.serve.contest import (
    Scored,
    saturating,
    score_gap,
    shares,
    speeds,
    take_turns,
)
from gad_ray.bench.serve.critics import make_critic
from gad_ray.bench.serve.latency import time_answers
from gad_ray.bench.serve.servers import Command
from gad_ray.bench.serve.setting import Setting, surroundings
from gad_ray.bench.serve.shapes import OwnShape, requests_for
from gad_ray.bench.serve.study import ServeStudy
from gad_ray.bench.serve.texts import draw_pairs
from gad_ray.errors import ConfigError, GadError
from gad_ray.models.critic_export import load_critic
from gad_ray.serving.application.follow import critics_of
from gad_ray.serving.application.loaded_critic import ServedCritic
from tests.unit.bench.serving import listening, serving, toy_setting

pytestmark = pytest.mark.study


PAIRS = draw_pairs(12, seed=4, shortest=2, longest=24)


@pytest.fixture(scope="module")
def critic_dir(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_critic(tmp_path_factory.mktemp("bench") / "critic", model=str(tied_model))


@pytest.fixture(scope="module")
def offline(critic_dir: Path) -> tuple[str, list[float]]:
    return offline_scores(critic_dir, PAIRS)


# --- Throughput, and who is compared


def test_the_bare_forward_gives_the_scores_of_the_critic_round_after_round(
    critic_dir: Path, offline: tuple[str, list[float]], tmp_path: Path
) -> None:
    with BareForward.running(critic_dir, PAIRS, threads=2, batch_tokens=200, out=tmp_path) as bare:
        first, second, served = bare.round(), bare.round(), bare.round(as_served=True)
    chat = load_critic(critic_dir).encoder
    assert bare.tokens == sum(len(chat.encode(pair)) for pair in PAIRS)
    assert first["scores"] == second["scores"] == pytest.approx(offline[1], abs=1e-4)
    assert served["scores"] == pytest.approx(offline[1], abs=1e-4)
    assert first["seconds"] > 0


def test_a_bare_forward_that_cannot_begin_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(GadError, match="is not an exported critic"),
        BareForward.running(tmp_path, PAIRS, threads=1, batch_tokens=200, out=tmp_path),
    ):
        pass


def test_an_endpoint_and_a_plain_loop_score_all_pairs_in_large_and_in_single_requests(
    critic_dir: Path, offline: tuple[str, list[float]]
) -> None:
    with serving(ServedCritic.load(critic_dir)) as server:
        for each in (5, 1):
            requests = requests_for(OwnShape(), PAIRS, each=each)
            scored = saturating(server, OwnShape(), requests, concurrency=3)()
            assert scored.scores == pytest.approx(offline[1], abs=1e-4)
    critic = load_critic(critic_dir)
    rows = [critic.encoder.encode(pair) for pair in PAIRS]
    with torch.no_grad():
        last = [float(critic.row_values([row])[0, -1]) for row in rows]
    shape = RewardShape(critic.encoder.chat)
    with listening(build_app(critic_dir)) as server:
        scored = saturating(server, shape, requests_for(shape, PAIRS, each=5), concurrency=2)()
    assert scored.scores == pytest.approx(last, abs=1e-4)


def test_the_classifier_for_vllm_scores_as_the_head_scores_the_last_token(
    critic_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    model: Any = AutoModelForSequenceClassification.from_pretrained(
        str(as_classifier(critic_dir, tmp_path / "c"))
    )
    critic = load_critic(critic_dir)
    ids = torch.from_numpy(critic.encoder.encode(PAIRS[0]).ids.astype("int64"))[None]
    with torch.no_grad():
        assert model.num_labels == 1
        assert float(model(input_ids=ids).logits[0, 0]) == pytest.approx(
            float(critic.values(ids)[0, -1]), abs=1e-5
        )


def test_rounds_are_played_in_turn_and_the_first_does_not_count() -> None:
    order: list[str] = []

    def way(name: str, *seconds: float) -> Callable[[], Scored]:
        left = list(seconds)

        def play() -> Scored:
            order.append(name)
            return Scored(left.pop(0), [1.0, 2.0 if name == "a" else 2.5])

        return play

    ways = {"a": way("a", 9.0, 1.0, 2.0, 4.0), "b": way("b", 9.0, 2.0, 2.0, 5.0)}
    played = take_turns(ways, rounds=3, tell=lambda line: None)
    assert order == ["a", "b"] * 4
    assert speeds(played, pairs=10, tokens=100)["a"] == {
        "seconds": [1.0, 2.0, 4.0],
        "pairs_per_s": 5.0,
        "tokens_per_s": 50.0,
    }
    assert shares(played, "b", of="a") == {"median": 0.8, "low": 0.5, "high": 1.0}
    assert score_gap(played, "b", of="a") == 0.5


def test_a_round_with_a_refused_request_counts_for_nothing(critic_dir: Path) -> None:
    with serving(ServedCritic.load(critic_dir), max_pairs=2) as server:
        way = saturating(server, OwnShape(), requests_for(OwnShape(), PAIRS, each=4), concurrency=1)
        with pytest.raises(GadError, match=r"400.*at most 2"):
            way()


def test_a_server_that_does_not_come_up_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = Command(name="it", arguments=["python", "-c", "raise SystemExit('no room')"], ready="/")
    with pytest.raises(GadError, match="it ended with 1 and said:\nno room"), command.running(tmp_path / "l"):
        pass


# --- Latency and overload


def test_latency_and_overload_at_toy_size(critic_dir: Path, tmp_path: Path) -> None:
    setting = toy_setting(critic_dir, tmp_path)
    # A queue so short that some are refused however fast this machine is.
    with serving(ServedCritic.load(critic_dir), max_queued_requests=5) as server:
        timed = time_answers(server, setting)
        flooded = overload(server, setting)
    assert timed["per_s"] == pytest.approx(0.7 * timed["saturation_per_s"])
    assert sum(timed["statuses"].values()) == timed["requests"]
    assert 0 < timed["latency_ms"]["p50"] <= timed["latency_ms"]["p99"] <= timed["latency_ms"]["max"]
    assert set(flooded["statuses"]) <= {"200", "429"}
    assert sum(flooded["statuses"].values()) == flooded["requests"]
    assert flooded["statuses"]["200"] > 0
    assert flooded["retry_after"]["with_retry_after"] == flooded["statuses"].get("429", 0)
    assert flooded["polite"]["repeated_too_early"] == 0
    assert flooded["polite"]["given_up"] == 0


# --- Swaps


def test_versions_are_apart_and_a_run_has_each_in_its_turn_as_news(critic_dir: Path, tmp_path: Path) -> None:
    paths = make_versions(critic_dir, tmp_path / "versions", count=2)
    scores = [offline_scores(path, PAIRS) for path in paths]
    assert scores[0][0] != scores[1][0]
    assert min(abs(a - b) for a, b in zip(scores[0][1], scores[1][1], strict=True)) > 0.1
    run = FollowedRun(tmp_path / "run", paths)
    seen = []
    for number in range(4):
        assert run.publish(number) == number % 2
        [newest] = critics_of(run.root)
        assert newest[1] == paths[number % 2].resolve()
        seen.append(newest)
    assert len(set(seen)) == 4


def stub(offline: dict[str, list[float]], texts: list[str], *, every: int, how: str) -> FastAPI:
    """Answers with the first version's scores; every so many requests, something is wrong."""
    app = FastAPI()
    first, second = offline
    count = 0

    async def score(request: Request) -> JSONResponse:
        nonlocal count
        count += 1
        # Its answers are not so quick that nothing else happens.
        await asyncio.sleep(0.002)
        places = [texts.index(text) for text in (await request.json())["documents"]]
        fingerprint, scores = first, [offline[first][place] for place in places]
        if count % every == 0:
            match how:
                case "another version's":
                    fingerprint = second
                case "off":
                    scores[-1] += 0.001
                case "never served":
                    fingerprint = "f" * 64
                case _:
                    return JSONResponse({"error": {"message": "no", "code": None}}, status_code=int(how))
        data = [{"index": i, "score": value, "truncated": False} for i, value in enumerate(scores)]
        return JSONResponse(
            {
                "id": "score-1",
                "created": 1,
                "model": "critic",
                "model_version": {"fingerprint": fingerprint, "step": 1},
                "truncated": False,
                "usage": {"prompt_tokens": 1, "total_tokens": 1},
                "data": data,
            }
        )

    app.add_api_route("/v1/score", score, methods=["POST"])
    return app


def play(tmp_path: Path, critic_dir: Path, *, every: int, how: str) -> dict[str, Any]:
    offline = {"a" * 64: [float(i) for i in range(12)], "b" * 64: [i + 100.0 for i in range(12)]}
    versions = [tmp_path / name for name in offline]
    for path in versions:
        path.mkdir()
        (path / "critic.json").touch()
    run = FollowedRun(tmp_path / "run", versions)
    texts = [pair.response for pair in PAIRS]
    with listening(stub(offline, texts, every=every, how=how)) as server:
        return Trial(
            server=server,
            run=run,
            pairs=PAIRS,
            offline=offline,
            names=list(offline),
            setting=toy_setting(critic_dir, tmp_path),
        ).play()


@pytest.mark.parametrize(
    ("how", "counted"),
    [("another version's", "wrong"), ("off", "wrong"), ("never served", "unknown_version")],
)
def test_falsified_answers_under_load_are_counted(
    how: str, counted: str, critic_dir: Path, tmp_path: Path
) -> None:
    figures = play(tmp_path, critic_dir, every=5, how=how)
    clients = [figures["with_retries"], figures["without_retries"]]
    assert sum(client[counted] for client in clients) > 0
    for client in clients:
        assert client["requests"] == client["answered"]
        assert client["wrong"] + client["unknown_version"] < client["requests"]
        assert client["lost"] == client["server_errors"] == 0
    assert figures["published"] > 0


def test_a_client_with_retries_hides_an_error_that_one_without_counts(
    critic_dir: Path, tmp_path: Path
) -> None:
    figures = play(tmp_path, critic_dir, every=3, how="503")
    patient, plain = figures["with_retries"], figures["without_retries"]
    met = [client["attempts"].get("503", 0) for client in (patient, plain)]
    assert sum(met) > 0
    assert patient["requests"] == patient["answered"]
    assert patient["lost"] == patient["wrong"] == 0
    assert plain["lost"] == plain["server_errors"] == met[1]


def test_versions_that_cannot_be_told_apart_are_refused(critic_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(GadError, match="a wrong answer would not show"):
        Trial(
            server=Any,  # type: ignore[arg-type]
            run=FollowedRun(tmp_path, []),
            pairs=PAIRS,
            offline={"a": [1.0], "b": [1.0002]},
            names=["a", "b"],
            setting=toy_setting(critic_dir, tmp_path),
        )


# --- The whole


FIGURES: dict[str, dict[str, Any]] = {
    "throughput": {
        "pairs": 10,
        "tokens": 1000,
        "bare_tokenising_s": 0.01,
        "ways": {
            "bare forward": {"seconds": [1.0], "pairs_per_s": 10.0, "tokens_per_s": 1000.0},
            "1 pair a request": {
                "seconds": [1.25],
                "pairs_per_s": 8.0,
                "tokens_per_s": 800.0,
                "share": {"median": 0.8, "low": 0.7, "high": 0.9},
                "score_gap": 2e-6,
            },
        },
    },
    "peers": {
        "pairs": 10,
        "tokens": 1000,
        "ways": {
            "gad-ray serve, 1 pair a request": {
                "seconds": [1.0],
                "pairs_per_s": 10.0,
                "tokens_per_s": 1000.0,
                "ours_is_faster": {"median": 1.0, "low": 1.0, "high": 1.0},
            }
        },
        "missing": {"vLLM": "it is not\ninstalled"},
        "peers_gap": 0.0,
    },
}


def study_of(critic_dir: Path, out: Path, *parts: str, **changed: Any) -> tuple[dict[str, Any], list[str]]:
    measured: list[str] = []

    def measure(name: str) -> Callable[[Setting], dict[str, Any]]:
        def run(setting: Setting) -> dict[str, Any]:
            measured.append(name)
            return FIGURES[name]

        return run

    known = {name: replace(part, measure=measure(name)) for name, part in PARTS.items()}
    found = ServeStudy(known=known, parts=parts, setting=toy_setting(critic_dir, out, **changed)).run()
    return found, measured


def test_a_part_is_measured_once_with_one_setting_and_tabled_with_the_others(
    critic_dir: Path, tmp_path: Path
) -> None:
    _, measured = study_of(critic_dir, tmp_path, "throughput")
    assert measured == ["throughput"]
    # What a part does not depend on changes nothing for it.
    figures, measured = study_of(critic_dir, tmp_path, "throughput", "peers", minutes=3.0)
    assert measured == ["peers"]
    assert list(figures) == ["throughput", "peers"]
    assert json.loads((tmp_path / "serve.json").read_text()) == figures
    _, measured = study_of(critic_dir, tmp_path, "throughput", pairs=13)
    assert measured == ["throughput"]
    page = load_page(figures)
    assert "| 1 pair a request | 8.00 | 800 | 0.80 (0.70 to 0.90) | 2.0e-06 |" in page
    assert "| vLLM | did not run | – | – |" in page
    assert "vLLM did not run: it is not installed" in page
    assert "apart at most" not in page
    figures["peers"]["figures"] |= {"missing": {}, "peers_gap": 3e-6}
    assert "their scores are 3.0e-06 apart at most" in load_page(figures)
    assert f"{surroundings()['cores']:g} cores" in page


def test_swaps_are_tabled_with_what_went_wrong() -> None:
    client = {
        "requests": 10,
        "answered": 9,
        "wrong": 2,
        "unknown_version": 1,
        "lost": 1,
        "server_errors": 1,
        "attempts": {"200": 9, "503": 6},
        "latency_ms": {"p50": 12.4, "p90": 20.0, "p99": None, "max": 30.0},
    }
    figures = {"swaps": {"figures": {"with_retries": client, "without_retries": {**client, "wrong": 0}}}}
    head, *rows = SWAPS.table(figures["swaps"]["figures"])
    assert head[1:] == ["client with retries", "client without"]
    assert ["wrong scores for the named version", "2", "0"] in rows
    assert ["of these ended in 5xx", "1", "1"] in rows
    assert ["attempts by status", *["200: 9, 503: 6"] * 2] in rows
    assert ["p50, p99, longest ms", *["12, –, 30"] * 2] in rows


def test_a_part_that_there_is_not_is_told_with_those_there_are(critic_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'speed'.*\n.*throughput, latency, peers, swaps, overload"):
        ServeStudy(parts=["speed"], setting=toy_setting(critic_dir, tmp_path))


def test_the_score_of_a_fresh_critic_is_a_number_that_tells_texts_apart(
    offline: tuple[str, list[float]],
) -> None:
    assert all(math.isfinite(score) for score in offline[1])
    assert len({round(score, 3) for score in offline[1]}) == len(PAIRS)
