"""A chat template renders the same text always: its variables, its date and its beginning are written into it."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from gad_ray.batch import Message
from gad_ray.config import load_config
from gad_ray.config.critic import CriticConfig
from gad_ray.config.models import ModelConfig
from gad_ray.errors import ConfigError, DataError, ModelError
from gad_ray.models.chat import ChatFormat, configured_chat_format, load_chat_format
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic, load_critic
from gad_ray.models.template import DEFAULT_DATE, freeze, prints_date, template_variables
from tests.tiny import make_tiny_model, make_tiny_tokenizer

BODY = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = (
    "{% if strftime_now is defined %}Today is {{ strftime_now('%A, %-d %B %Y (%d %b %y)') }}.\n{% endif %}"
)
THINKING = "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
HELLO = [Message(role="user", content="Hello")]


def chat_of(directory: Path, text: str, **given: Any) -> ChatFormat:
    directory.mkdir(exist_ok=True)
    (directory / "own.jinja").write_text(text, encoding="utf-8")
    if not (directory / "tokenizer.json").exists():
        make_tiny_tokenizer(directory)
    return load_chat_format(directory, chat_template=str(directory / "own.jinja"), **given)


def plain(directory: Path, text: str, **variables: object) -> str:
    """What transformers renders when the variables are given to it."""
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    tokenizer.chat_template = text
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True, **variables
    )


def test_the_day_is_the_same_every_day_and_a_setting(tmp_path: Path):
    assert (
        chat_of(tmp_path, DATED + BODY)
        .prompt_text(HELLO)
        .startswith("Today is Friday, 26 July 2024 (26 Jul 24).\n<|im_start|>user")
    )
    assert date(2024, 7, 26) == DEFAULT_DATE
    other = chat_of(tmp_path, DATED + BODY, day=date(2026, 1, 5))
    assert other.prompt_text(HELLO).startswith("Today is Monday, 5 January 2026 (05 Jan 26).\n")


def test_what_was_frozen_stays_until_something_else_is_given(tmp_path: Path):
    first = chat_of(
        tmp_path, DATED + THINKING + BODY, day=date(2020, 2, 1), variables={"enable_thinking": False}
    )
    again = chat_of(tmp_path, first.template_text)
    assert again.template_text == first.template_text
    assert "1 February 2020" in again.prompt_text(HELLO)
    assert "<think></think>" in again.prompt_text(HELLO)
    later = chat_of(
        tmp_path, first.template_text, day=date(2021, 3, 4), variables={"enable_thinking": True}
    ).prompt_text(HELLO)
    assert "4 March 2021" in later
    assert "<think>" not in later


@pytest.mark.parametrize("value", [False, True, 3, 0.5, 'a "quoted" \\ word\nand 你好', ""])
@pytest.mark.parametrize("lead", ["", "\n", "  \n", "  {% if true %}yes\n{% endif %}", "  text "])
def test_a_frozen_variable_renders_as_one_that_is_given(tmp_path: Path, value: object, lead: str):
    body = lead + "[{{ style }}|{% if style is defined and style %}{{ style }}{% endif %}]\n" + BODY
    chat = chat_of(tmp_path, body, variables={"style": value})
    assert chat.prompt_text(HELLO) == plain(tmp_path, body, style=value)


def test_a_template_that_needs_nothing_is_left_as_it_is(tmp_path: Path):
    assert chat_of(tmp_path, BODY).template_text == BODY
    assert not prints_date(BODY)
    assert template_variables(BODY) == []


def test_what_varies_is_named(tmp_path: Path):
    text = chat_of(tmp_path, DATED + THINKING + BODY, variables={"enable_thinking": False}).template_text
    assert prints_date(text)
    assert template_variables(text) == ["enable_thinking"]


def test_a_variable_that_is_not_read_is_refused_with_the_closest():
    with pytest.raises(ModelError, match="reads no 'enable_thinkin'; did you mean 'enable_thinking'"):
        freeze(THINKING + BODY, variables={"enable_thinkin": False}, day=None)
    for name in ("messages", "not a name", "strftime_now"):
        with pytest.raises(ModelError, match="cannot set"):
            freeze(THINKING + BODY, variables={name: False}, day=None)


@pytest.mark.parametrize("chance", ["{{ ['a', 'b'] | random }}", "{{ lipsum(1) }}"])
def test_a_template_that_draws_by_chance_is_refused(chance: str):
    with pytest.raises(ModelError, match="by chance"):
        freeze(chance + BODY, variables={}, day=None)


def test_settings_reach_the_template_and_the_critics_fingerprint_and_its_export(tmp_path: Path):
    directory = make_tiny_model(tmp_path / "model")
    (tmp_path / "own.jinja").write_text(DATED + THINKING + BODY, encoding="utf-8")

    def critic(**settings: Any) -> CriticModel:
        config = ModelConfig(
            model=str(directory), chat_template=str(tmp_path / "own.jinja"), compute="float32", **settings
        )
        pooling = CriticConfig.model_fields["pooling"].get_default(call_default_factory=True)
        return CriticModel.build(config, pooling=pooling, max_tokens=128, seed=0)

    plain_one = critic()
    for changed in ({"template_date": "2025-01-01"}, {"template_variables": {"enable_thinking": False}}):
        other = critic(**changed)
        assert other.fingerprint().differing(plain_one.fingerprint()) == ("template",)
        export_critic(other, tmp_path / "critic", step=1, temperature=1.0)
        loaded = load_critic(tmp_path / "critic")
        assert loaded.fingerprint() == other.fingerprint()
        assert loaded.encoder.chat.prompt_text(HELLO) == other.encoder.chat.prompt_text(HELLO)


def test_a_days_form_is_checked_with_the_configuration():
    for wrong in ("tomorrow", "2025-13-01", "20250101"):
        with pytest.raises(ConfigError, match="template_date"):
            load_config("quickstart", [f"policy.model.template_date={wrong}"])
    config = load_config(
        "quickstart",
        ["policy.model.template_date=2025-01-02", "critic.model.template_variables={deep: true}"],
    )
    assert config.policy.model.template_day == date(2025, 1, 2)
    assert config.critic.model.template_variables == {"deep": True}


@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_a_packaged_template_begins_as_the_tokenizer_does(tmp_path: Path, name: str):
    directory = make_tiny_model(tmp_path / "model", chat=False)
    without = load_chat_format(directory, chat_template=name)
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]} $B", special_tokens=[bos]
    )
    tokenizer.save_pretrained(str(tmp_path / "bos"))
    chat = load_chat_format(tmp_path / "bos", chat_template=name)
    for text in ("Hello", f"spelled out: {bos[0]}"):
        ids = chat.prompt_ids([Message(role="user", content=text)])
        assert ids[0] == bos[1]
        assert ids.count(bos[1]) == 1
    assert chat.prompt_ids(HELLO)[1:] == without.prompt_ids(HELLO)
    assert not without.template_text.startswith("{{ bos_token }}")
    # What is exported says it too, and says it once.
    chat.save(tmp_path / "saved")
    saved = load_chat_format(tmp_path / "saved")
    assert saved.prompt_ids(HELLO) == chat.prompt_ids(HELLO)


@pytest.mark.parametrize("wrong", ["{{ 1 // 0 }}", "{{ messages[0].content.nothing.here }}", "{{ 'a' + 1 }}"])
def test_whatever_a_template_raises_names_the_template_and_the_roles(tmp_path: Path, wrong: str):
    body = "{% if messages[0]['role'] == 'system' %}" + wrong + "{% endif %}" + BODY
    chat = chat_of(tmp_path, body)
    assert "Hello" in chat.prompt_text(HELLO)
    with pytest.raises(DataError, match=r"refuses a conversation of the roles \['system', 'user'\]"):
        chat.prompt_text([Message(role="system", content="s"), *HELLO])


def test_an_error_of_no_common_kind_is_caught_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chat = chat_of(tmp_path, BODY)

    class OddError(Exception):
        pass

    def odd(*_: object, **__: object) -> str:
        raise OddError("what nobody thought of")

    monkeypatch.setattr(chat.tokenizer, "apply_chat_template", odd)
    with pytest.raises(DataError, match="OddError: what nobody thought of"):
        chat.prompt_text(HELLO)


def test_the_configured_format_is_the_loaded_one(tmp_path: Path):
    directory = make_tiny_model(tmp_path / "model", chat=False)
    chat = configured_chat_format(directory, ModelConfig(model=str(directory), chat_template="chatml"))
    assert chat.template_text == load_chat_format(directory, chat_template="chatml").template_text
