"""A critic that is no value head behind HTTP, and asked there as any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from examples.extending.length_critic import LengthCritic, LengthCriticSettings
from gad_ray.batch import Message
from gad_ray.config.critic import RemoteCriticSettings
from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.critics import RemoteCritic
from gad_ray.critics.frozen import FrozenCriticLearner
from gad_ray.critics.store import open_critic
from gad_ray.errors import ModelError
from gad_ray.evaluation.scoring import score_rows
from gad_ray.learners.collective import LocalCollective
from gad_ray.models.pairs import Pair
from gad_ray.serving.application.any_critic import AnyServedCritic, load_served
from tests.unit.builders import critic_config, prompt_batch, rollout_batch
from tests.unit.serving.listening import listening

OWN = LengthCritic(LengthCriticSettings(words=3))
PAIRS = [
    Pair((Message(role="system", content="Kurz."), Message(role="user", content="天空?")), text)
    for text in ("", "one", "eins zwei drei", "蓝 蓝 蓝 蓝 😀", "one")
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    exported = tmp_path_factory.mktemp("any") / "critic"
    OWN.export(exported)
    with listening(
        load_served(exported), limits=Limits(), batching=BatchSettings(max_batch_tokens=50)
    ) as where:
        yield where


def test_it_is_asked_over_http_as_it_is_asked_here(url: str) -> None:
    remote = open_critic(url)
    assert isinstance(remote, RemoteCritic)
    assert remote.fingerprint() == OWN.fingerprint()
    np.testing.assert_array_equal(remote.score(PAIRS), OWN.score(PAIRS))


def test_a_served_critic_is_exported_as_where_it_is_and_opened_again(url: str, tmp_path: Path) -> None:
    remote = open_critic(url)
    remote.export(tmp_path / "remote")
    again = open_critic(tmp_path / "remote")
    np.testing.assert_array_equal(again.score(PAIRS), OWN.score(PAIRS))
    [row] = score_rows(url, [{"content": "?", "response": "one two"}])
    assert row["score"] == pytest.approx(-1 / 3)


def test_a_game_is_scored_by_a_served_critic(url: str, chat, tied_model: Path) -> None:
    prompts = prompt_batch(3)
    config = critic_config(tied_model, frozen=RemoteCriticSettings(url=url))
    learner = FrozenCriticLearner(config, collective=LocalCollective())
    scores, stats = learner.score_and_update(prompts, rollout_batch(chat, prompts))
    wanted = OWN.score([Pair(prompts.examples[0].messages, prompts.examples[0].teacher_response)])
    assert scores.teacher[0] == wanted[0]
    assert stats.metrics["critic/teacher_score_max"] <= 0.0


def test_what_needs_a_value_head_is_refused_by_name(url: str) -> None:
    body = {"queries": "q", "documents": ["a"]}
    refused = httpx.post(f"{url}/v1/score", json={**body, "return_token_values": True})
    told = refused.json()["error"]
    assert (refused.status_code, told["code"]) == (400, "not_a_value_head"), told
    refused = httpx.post(f"{url}/get_reward", json={"query": ["q a"], "prompts": ["q"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_a_value_head")


def test_a_long_response_is_cut_where_that_is_asked_for_and_not_within_a_character() -> None:
    served = AnyServedCritic(OWN)
    served.max_tokens = 60
    long = Pair((Message(role="user", content="q"),), "蓝" * 30)
    prepared = served.prepare(long, truncate=True, where="pair 0")
    assert prepared.truncated
    assert len(prepared) <= 60
    assert len(served.score_rows([prepared.row])) == 1
    with pytest.raises(Exception, match="the critic takes 60"):
        served.prepare(long, truncate=False, where="pair 0")


def test_a_critic_whose_first_score_is_no_number_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LengthCritic, "score", lambda self, pairs: np.full(len(pairs), np.inf, np.float32))
    with pytest.raises(ModelError, match="first text is not finite"):
        AnyServedCritic(OWN)
