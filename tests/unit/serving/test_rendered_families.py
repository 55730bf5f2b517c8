"""`/get_reward` takes apart what the templates of eight families put together, and refuses what has two readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from transformers import AutoTokenizer

from gad_ray.config.critic import MeanPooling
from gad_ray.config.models import ModelConfig
from gad_ray.evaluation.kept import OpenedCritic
from gad_ray.models.critic import CriticModel
from gad_ray.serving.served import ServedCritic
from tests.tiny import make_tiny_model, make_tiny_tokenizer
from tests.unit.serving.test_app import use

USER, SYSTEM, ANSWER = "Why is the sky blue?", "Be short.", "Because air scatters."
ROLE_LOOP = "{% for m in messages %}"
GENERATE = "{% endfor %}{% if add_generation_prompt %}"


@dataclass(frozen=True)
class Family:
    """A kind of template.

    Attributes:
        template: Jinja text.
        control: Its control tokens; the last ends a turn.
        system: Whether it takes a system message.
        separator: Text that it puts between messages or before an answer, and that a user may write.
    """

    template: str
    control: tuple[str, ...]
    system: bool = True
    separator: str = "\n"


FAMILIES = {
    # A system message of its own where none is given.
    "chatml with a default": Family(
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        + ROLE_LOOP
        + "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        + GENERATE
        + "<|im_start|>assistant\n{% endif %}",
        ("<|im_start|>", "<|im_end|>"),
    ),
    # A system block that is always there, with the date, and holds a system message if there is one.
    "llama 3.1": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] | trim %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        "<|head|>system<|/head|>\n\nDate: {{ strftime_now('%d %b %Y') }}\n\n{{ s }}<|eot|>"
        + ROLE_LOOP
        + "<|head|>{{ m['role'] }}<|/head|>\n\n{{ m['content'] | trim }}<|eot|>"
        + GENERATE
        + "<|head|>assistant<|/head|>\n\n{% endif %}",
        ("<|head|>", "<|/head|>", "<|eot|>"),
    ),
    # The system message goes into the user's.
    "mistral": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        + ROLE_LOOP
        + "{% if m['role'] == 'user' %}[INST] {{ s }}{{ m['content'] }} [/INST]"
        "{% else %}{{ m['content'] }}<|eot|>{% endif %}{% endfor %}",
        ("[INST]", "[/INST]", "<|eot|>"),
        separator="\n\n",
    ),
    "gemma": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + ROLE_LOOP
        + "<|turn|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<|/turn|>\n"
        + GENERATE
        + "<|turn|>model\n{% endif %}",
        ("<|turn|>", "<|/turn|>"),
        system=False,
    ),
    # Nothing stands between the beginning and a system message; a prompt ends inside a thought.
    "r1": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
        "{% set messages = messages[1:] %}{% endif %}"
        + ROLE_LOOP
        + "{% if m['role'] == 'user' %}<|User|>{{ m['content'] }}{% else %}"
        "<|Assistant|>{{ m['content'].split('</think>')[-1] }}<|eot|>{% endif %}"
        + GENERATE
        + "<|Assistant|><think>\n{% endif %}",
        ("<|User|>", "<|Assistant|>", "<|eot|>"),
        separator="<think>\n",
    ),
    "phi": Family(
        ROLE_LOOP
        + "<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n"
        + GENERATE
        + "<|assistant|>\n{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    # It says the user's message twice.
    "echo": Family(
        ROLE_LOOP
        + "<|{{ m['role'] }}|>\n{{ m['content'] }}{% if m['role'] == 'user' %}\nAgain: {{ m['content'] }}{% endif %}<|end|>\n"
        + GENERATE
        + "<|assistant|>\n{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        separator="\nAgain: ",
    ),
    # No control token but the one that ends an answer.
    "plain": Family(
        ROLE_LOOP + "{% if m['role'] == 'system' %}{{ m['content'] }}\n\n{% elif m['role'] == 'user' %}"
        "User: {{ m['content'] }}\n\n{% else %}Assistant: {{ m['content'] }}<|eot|>\n\n{% endif %}"
        + GENERATE
        + "Assistant: {% endif %}",
        ("<|eot|>",),
        separator="\n\nAssistant: ",
    ),
}


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
        """Status, and reward or message."""
        body: dict[str, object] = {"query": [f"{prompt}{response}{self.family.control[-1]}"]}
        if given:
            body["prompts"] = [prompt]
        answer = use(self.critic, lambda client: client.send("/get_reward", body))
        told = answer.json()
        return answer.status_code, told["rewards"][0] if answer.status_code == 200 else told["error"]

    def score(self, *messages: tuple[str, str], response: str = ANSWER) -> float:
        turns = [{"role": role, "content": content} for role, content in messages]
        body = {"messages": turns, "documents": [response]}
        answer = use(self.critic, lambda client: client.send("/v1/score", body))
        assert answer.status_code == 200, answer.text
        return float(answer.json()["data"][0]["score"])


@pytest.fixture(scope="module", params=list(FAMILIES))
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Endpoint:
    family = FAMILIES[request.param]
    directory = make_tiny_model(tmp_path_factory.mktemp("family"), vocab_size=400)
    make_tiny_tokenizer(directory, vocab_size=380)
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    new = [token for token in family.control if token not in tokenizer.get_vocab()]
    tokenizer.add_special_tokens({"additional_special_tokens": [*new, "<|bos|>"]})
    tokenizer.bos_token, tokenizer.eos_token = "<|bos|>", family.control[-1]
    tokenizer.chat_template = family.template
    tokenizer.save_pretrained(str(directory))
    model = CriticModel.build(
        ModelConfig(model=str(directory), compute="float32"), pooling=MeanPooling(), max_tokens=400, seed=0
    )
    return Endpoint(family, ServedCritic(OpenedCritic(model=model.eval(), step=1, temperature=1.0)))


def conversations(family: Family) -> list[list[tuple[str, str]]]:
    alone = [("user", USER)]
    return [alone, [("system", SYSTEM), *alone]] if family.system else [alone]


@pytest.mark.parametrize("given", [True, False], ids=["with its prompt", "alone"])
def test_a_rendered_sample_gets_the_score_of_its_messages(endpoint: Endpoint, given: bool):
    for messages in conversations(endpoint.family):
        status, reward = endpoint.reward(endpoint.rendered(*messages), given=given)
        assert status == 200, reward
        assert reward == pytest.approx(endpoint.score(*messages), abs=1e-6)


def test_a_message_may_hold_what_the_template_writes_in_plain_text(endpoint: Endpoint):
    for messages in conversations(endpoint.family):
        *before, (role, content) = messages
        messages = [*before, (role, f"{content}{endpoint.family.separator}And the sea?")]
        status, reward = endpoint.reward(endpoint.rendered(*messages), given=True)
        assert status == 200, reward
        assert reward == pytest.approx(endpoint.score(*messages), abs=1e-6)


def test_a_control_token_that_somebody_typed_is_refused(endpoint: Endpoint):
    typed = endpoint.rendered(("user", f"{USER} {endpoint.family.control[0]} x"))
    for given in (True, False):
        status, error = endpoint.reward(typed, given=given)
        assert status == 400
        assert error["code"] == "prompt_not_understood"


@pytest.mark.parametrize("endpoint", ["plain"], indirect=True)
def test_a_query_with_two_readings_is_refused_by_name(endpoint: Endpoint):
    """No control token stands before an answer of this family, so that a message may hold all of it."""
    prompt = endpoint.rendered(("user", USER))
    status, error = endpoint.reward(f"{prompt}Really?\n\nAssistant: {ANSWER}", response="", given=False)
    assert status == 400
    assert error["code"] == "prompt_ambiguous"
    assert "the query has 2 readings" in error["message"]
    assert f"user up to character {len(prompt)}, then the response 'Really?" in error["message"]
    assert "and user up to character" not in error["message"]


@pytest.mark.parametrize("endpoint", ["plain"], indirect=True)
def test_a_query_that_falls_apart_at_too_many_places_is_refused_soon(endpoint: Endpoint):
    prompt = endpoint.rendered(("user", USER))
    status, error = endpoint.reward(prompt + "\n\nAssistant: " * 100, response="", given=False)
    assert status == 400
    assert "more than 64 times" in error["message"]
