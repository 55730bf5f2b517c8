from typing import Any

import pytest
from pydantic import ValidationError

from gad_ray.client.schema import CompareRequest, RerankRequest, RewardRequest, ScoreRequest

TALK = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2")]
)
def test_both_sides_are_found_under_each_of_their_names(names: tuple[str, str]):
    request = ScoreRequest.model_validate({names[0]: "q", names[1]: ["a", "b"]})
    assert request.sides == (["q"], ["a", "b"])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"queries": "q"},
        {"documents": ["d"]},
        {"queries": "q", "text_2": "d"},
        {"queries": "q", "documents": "d", "items": "d"},
        {"messages": TALK, "queries": "q", "documents": "d"},
        {"messages": []},
        {"queries": [], "documents": []},
        {"queries": "q", "documents": []},
        {"queries": "q", "documents": [1]},
        {"queries": "q", "documents": None},
        {"queries": ["q", None], "documents": "d"},
        {"queries": "q", "documents": "d", "unknown": 1},
        {"queries": "q", "documents": "d", "model": 3},
        {"queries": "q", "documents": "d", "truncate": True},
        {"queries": "q", "documents": "d", "return_token_values": "yes"},
        {"messages": [{"role": "tool", "content": "x"}], "documents": "d"},
        {"messages": [{"role": "user", "content": "x", "name": "y"}], "documents": "d"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "documents": "d"},
    ],
)
def test_a_score_request_that_is_not_of_the_shape_is_refused(fields: dict[str, Any]):
    with pytest.raises(ValidationError):
        ScoreRequest.model_validate(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"query": "q", "documents": []},
        {"documents": ["d"]},
        {"query": "q", "messages": TALK, "documents": ["d"]},
        {"query": "q", "documents": ["d"], "top_n": 0},
        {"query": "q", "documents": ["d"], "top_n": 1.0},
        {"query": "q", "documents": [{"text": "d", "title": "t"}]},
    ],
)
def test_a_rerank_request_that_is_not_of_the_shape_is_refused(fields: dict[str, Any]):
    with pytest.raises(ValidationError):
        RerankRequest.model_validate(fields)


@pytest.mark.parametrize("responses", [[], ["a"], ["a", "b", "c"], "ab"])
def test_a_comparison_takes_two_responses(responses: object):
    with pytest.raises(ValidationError):
        CompareRequest.model_validate({"prompt": "q", "responses": responses})


@pytest.mark.parametrize(
    "fields", [{"query": []}, {"query": ["a"], "prompts": []}, {"query": ["a"], "prompts": ["a", "b"]}]
)
def test_a_reward_request_has_as_many_prompts_as_queries(fields: dict[str, Any]):
    with pytest.raises(ValidationError):
        RewardRequest.model_validate(fields)
