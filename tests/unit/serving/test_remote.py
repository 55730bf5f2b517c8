from dataclasses import asdict

import httpx
import pytest

from gad_ray.batch import Fingerprint
from gad_ray.client.retry import EndpointError
from gad_ray.client.score_client import ScoreClient
from gad_ray.config.critic import RemoteCriticSettings
from gad_ray.critics.remote import RemoteCritic
from tests.unit.builders import pair
from tests.unit.serving.test_client import answer

PARTS = Fingerprint(weights="w", head="h", template="t", tokenizer="k", pooling="p", dtype="float32")


def remote(*, parts: dict[str, str] | None = None, scored_by: str = PARTS.digest) -> RemoteCritic:
    """One critic on the card, and a critic that gives the scores."""
    card = {
        "id": "critic",
        "created": 1,
        "max_model_len": 100,
        "model_version": {"fingerprint": PARTS.digest, "step": 3},
        "fingerprint_parts": parts or asdict(PARTS),
        "temperature": 2.0,
        "dtype": "float32",
    }

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [card]})
        return answer({"documents": ["one", "three"]}, scored_by)

    client = ScoreClient("http://critic:1", transport=httpx.MockTransport(handle))
    return RemoteCritic(client, RemoteCriticSettings(url="http://critic:1"))


def test_a_served_critic_says_who_it_is_part_by_part_and_scores():
    critic = remote()
    assert critic.fingerprint() == PARTS
    assert (critic.step, critic.where) == (3, "http://critic:1")
    assert critic.score([pair("q", "one"), pair("q", "three")]).tolist() == [3.0, 5.0]


def test_scores_of_another_critic_than_was_met_first_are_refused():
    with pytest.raises(EndpointError, match="another critic is served than a moment ago"):
        remote(scored_by="f" * 64).score([pair("q", "one"), pair("q", "three")])


def test_a_fingerprint_of_other_parts_is_refused():
    with pytest.raises(EndpointError, match="other parts than are known here"):
        remote(parts={"weights": "w"})
