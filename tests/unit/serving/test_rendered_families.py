"""`/get_reward` takes apart what the templates of the families put together, and refuses what has two readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from gad_ray.config.models import ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.models.critic import CriticModel
from gad_ray.serving.application.loaded_critic import ServedCritic
from tests.tiny import make_tiny_model, make_tiny_tokenizer
from tests.unit.serving.families import FAMILIES, OPEN, Family
from tests.unit.serving.test_app import use

USER, SYSTEM, ANSWER = "Why is the sky blue?", "Be short.", "Because air scatters."

both_ways = pytest.mark.parametrize("given", [True, False], ids=["with its prompt", "alone"])


@dataclass(frozen=True)
class Endpoint:
    """A critic whose template is of a family."""

    family: Family
    critic: ServedCritic

    def rendered(self, *messages: tuple[str, str]) -> str:
        tokenizer = self.critic.chat.tokenizer
        turns = [{"role": role, "content": content} for role, content in messages]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def reward(self, prompt: str, *, response: str = ANSWER, given: bool) -> tuple[int, Any]:
        """Status, and reward or error."""
        body: dict[str, object] = {"query": [f"{prompt}{response}{self.family.control[-1]}"]}
        if given:
            body["prompts"] = [prompt]
        answer = use(self.critic, lambda client: client.send("/get_reward", body))
        told = answer.json()
        return answer.status_code, told["rewards"][0] if answer.status_code == 200 else told["error"]

    def score(self, *messages: tuple[str, str], response: str = ANSWER) -> tuple[int, Any]:
        """Status, and score or error."""
        turns = [{"role": role, "content": content} for role, content in messages]
        body = {"messages": turns, "documents": [response]}
        answer = use(self.critic, lambda client: client.send("/v1/score", body))
        told = answer.json()
        return answer.status_code, told["data"][0]["score"] if answer.status_code == 200 else told["error"]

    def assert_alike(self, *messages: tuple[str, str], response: str = ANSWER, given: bool) -> None:
        """The sample gets the score of its messages."""
        status, score = self.score(*messages, response=response)
        assert status == 200, score
        status, reward = self.reward(self.rendered(*messages), response=response, given=given)
        assert status == 200, reward
        assert reward == pytest.approx(score, abs=1e-5)


@pytest.fixture(scope="module", params=list(FAMILIES))
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Endpoint:
    family = FAMILIES[request.param]
    directory = make_tiny_model(tmp_path_factory.mktemp("family"), vocab_size=400)
    make_tiny_tokenizer(directory, vocab_size=380)
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    new = [token for token in family.control if token not in tokenizer.get_vocab()]
    tokenizer.add_special_tokens({"additional_special_tokens": [*new, "<|bos|>"]})
    tokenizer.add_tokens(list(family.words))
    tokenizer.bos_token, tokenizer.eos_token = "<|bos|>", family.control[-1]
    tokenizer.chat_template = family.template
    tokenizer.save_pretrained(str(directory))
    model = CriticModel.build(
        ModelConfig(model=str(directory), compute="float32"), pooling=MeanPooling(), max_tokens=400, seed=0
    )
    with torch.no_grad():
        model.head.weight.mul_(100.0)  # the fresh head's scores are close to 0
    return Endpoint(family, ServedCritic(ValueHeadCritic(model=model.eval(), step=1, temperature=1.0)))


def conversations(family: Family, content: str = USER) -> list[list[tuple[str, str]]]:
    alone = [("user", content)]
    return [alone] if family.system == "refused" else [alone, [("system", SYSTEM), *alone]]


@both_ways
def test_a_rendered_sample_gets_the_score_of_its_messages(endpoint: Endpoint, given: bool):
    for messages in conversations(endpoint.family):
        endpoint.assert_alike(*messages, given=given)


@both_ways
def test_a_template_may_trim_messages_or_drop_thoughts(endpoint: Endpoint, given: bool):
    for content in ("  Why?\n", "Perhaps the air?</think>Why?"):
        for messages in conversations(endpoint.family, content):
            endpoint.assert_alike(*messages, given=given)


@both_ways
def test_a_response_may_be_a_thought_and_an_answer(endpoint: Endpoint, given: bool):
    endpoint.assert_alike(("user", USER), response="Light bends.\n</think>\n\nAir scatters.", given=given)


@both_ways
def test_a_message_may_hold_what_the_template_writes_in_plain_text(endpoint: Endpoint, given: bool):
    separator = endpoint.family.separator
    for messages in conversations(endpoint.family, f"{USER}{separator}And the sea?{separator}And I?"):
        endpoint.assert_alike(*messages, given=given)


@both_ways
def test_an_empty_system_message_is_none_where_the_two_render_alike(endpoint: Endpoint, given: bool):
    if endpoint.family.system == "refused":
        return
    user = ("user", USER)
    prompt = endpoint.rendered(("system", ""), user)
    status, reward = endpoint.reward(prompt, given=given)
    match endpoint.family.empty_system:
        case "none":
            assert prompt == endpoint.rendered(user)
            assert (status, reward) == (200, pytest.approx(endpoint.score(user)[1], abs=1e-5))
        case "merged":
            # Without its control tokens and brackets, this is what the user says.
            content = prompt.removeprefix("<|bos|>").removeprefix("[INST] ").removesuffix(" [/INST]")
            assert prompt == endpoint.rendered(("user", content))
            assert (status, reward) == (200, pytest.approx(endpoint.score(("user", content))[1], abs=1e-5))
        case "empty":  # as /v1/score has it
            assert (status, reward["code"]) == (400, "unusable_prompt")
            refused, error = endpoint.score(("system", ""), user)
            assert (refused, error["code"]) == (400, "unusable_prompt")


def test_a_control_token_that_somebody_typed_is_refused(endpoint: Endpoint):
    typed = endpoint.rendered(("user", f"{USER} {endpoint.family.control[0]} x"))
    for given in (True, False):
        status, error = endpoint.reward(typed, given=given)
        assert status == 400
        assert error["code"] == "prompt_not_understood"
        assert "/v1/score with messages" in error["message"]


def test_what_looks_like_the_beginning_of_an_answer_is_refused_or_read_rightly(endpoint: Endpoint):
    """A query alone in which the user has written all that stands before an answer."""
    prompt = endpoint.rendered(("user", USER))
    opening = prompt[prompt.index(USER) + len(USER) :]
    messages = ("user", f"{USER}{opening}Really?")
    status, error = endpoint.reward(endpoint.rendered(messages), given=False)
    assert status == 400
    if endpoint.family.opening is None:
        assert error["code"] == "prompt_not_understood"
        return
    assert opening == endpoint.family.opening
    assert error["code"] == "prompt_ambiguous"
    assert "the query has 2 readings" in error["message"]
    assert f"user up to character {len(prompt)}, then the response 'Really?" in error["message"]
    assert "/v1/score with messages" in error["message"]
    endpoint.assert_alike(messages, given=True)


@pytest.mark.parametrize("endpoint", OPEN, indirect=True)
def test_a_query_with_a_system_message_and_two_readings_is_refused_with_the_roles(endpoint: Endpoint):
    prompt = endpoint.rendered(("system", SYSTEM), ("user", USER))
    response = f"Really?{endpoint.family.opening}{ANSWER}"
    status, error = endpoint.reward(prompt, response=response, given=False)
    assert (status, error["code"]) == (400, "prompt_ambiguous")
    roles = "user" if endpoint.family.system == "merged" else "system and user"
    assert f"{roles} up to character {len(prompt)}, then" in error["message"]
    # The trainer tells them apart.
    status, reward = endpoint.reward(prompt, response=response, given=True)
    assert status == 200, reward
    _, score = endpoint.score(("system", SYSTEM), ("user", USER), response=response)
    assert reward == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("endpoint", ["plain"], indirect=True)
def test_of_many_readings_three_are_named(endpoint: Endpoint):
    prompt = endpoint.rendered(("user", USER))
    status, error = endpoint.reward(prompt + "Really?\n\nAssistant: " * 10, given=False)
    assert (status, error["code"]) == (400, "prompt_ambiguous")
    assert "the query has more than 3 readings" in error["message"]
    assert error["message"].count("up to character") == 3


@pytest.mark.parametrize("endpoint", ["plain"], indirect=True)
def test_a_query_that_falls_apart_at_too_many_places_is_refused(endpoint: Endpoint):
    prompt = endpoint.rendered(("user", USER))
    status, error = endpoint.reward(prompt + "\n\nAssistant: " * 200, response="", given=False)
    assert (status, error["code"]) == (400, "prompt_not_understood")
    assert "more than 128 places" in error["message"]


@pytest.mark.parametrize("endpoint", ["llama 3.1"], indirect=True)
def test_a_prompt_of_another_day_is_refused(endpoint: Endpoint):
    """The critic's template prints the day at which it was frozen, always."""
    prompt = endpoint.rendered(("user", USER))
    assert "26 Jul 2024" in prompt
    for given in (True, False):
        status, error = endpoint.reward(prompt.replace("26 Jul", "27 Jul"), given=given)
        assert (status, error["code"]) == (400, "prompt_not_understood")
