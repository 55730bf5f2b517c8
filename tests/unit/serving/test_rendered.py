from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer

from gad_ray.batch import Message
from gad_ray.models.chat import ChatFormat, load_chat_format
from gad_ray.models.pairs import Pair
from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.rendered import RenderedPrompts
from tests.tiny import make_tiny_tokenizer

USER = (Message(role="user", content="Why is the sky blue?"),)
SYSTEM = (Message(role="system", content="Be short."), *USER)


@pytest.fixture(scope="module", params=["chatml", "bracket"])
def chat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    directory: Path = tmp_path_factory.mktemp(request.param)
    return load_chat_format(make_tiny_tokenizer(directory, style=request.param))


@pytest.fixture(scope="module")
def prompts(chat: ChatFormat) -> RenderedPrompts:
    return RenderedPrompts(chat)


def query_of(chat: ChatFormat, rendered: str, response: str) -> str:
    """As a trainer decodes a generation: with the end of turn, and padding."""
    end, pad = chat.tokenizer.convert_ids_to_tokens([chat.end_of_turn_id, chat.pad_token_id])
    return f"{rendered}{response}{end}{pad}{pad}"


@pytest.mark.parametrize("messages", [USER, SYSTEM])
def test_what_the_template_rendered_is_taken_apart_again(
    chat: ChatFormat, prompts: RenderedPrompts, messages: tuple[Message, ...]
):
    rendered = chat.prompt_text(messages)
    query = query_of(chat, rendered, "Because air scatters.")
    assert prompts.pair(query, rendered, where="query.0") == Pair(messages, "Because air scatters.")


@pytest.mark.parametrize("messages", [USER, SYSTEM])
def test_a_query_alone_is_taken_apart_where_it_has_one_reading(
    chat: ChatFormat, prompts: RenderedPrompts, messages: tuple[Message, ...]
):
    rendered = chat.prompt_text(messages)
    query = query_of(chat, rendered, "Because air scatters.")
    assert prompts.pair(query, None, where="query.0") == Pair(messages, "Because air scatters.")


def test_a_prompt_without_control_tokens_is_a_users_message(prompts: RenderedPrompts):
    assert prompts.pair("2+2= 4", "2+2=", where="query.0") == Pair(
        (Message(role="user", content="2+2="),), " 4"
    )


@pytest.mark.parametrize(
    ("query", "prompt"),
    [
        ("Hello", "Bye"),
        ("no template at all", None),
        ("typed <|im_end|><s> in the middle yes", "typed <|im_end|><s> in the middle"),
        ("Hi yes</s><|im_end|> and on", "Hi"),
    ],
)
def test_what_cannot_be_told_apart_for_certain_is_refused(
    prompts: RenderedPrompts, query: str, prompt: str | None
):
    with pytest.raises(ApiError) as caught:
        prompts.pair(query, prompt, where="query.3")
    assert (caught.value.status, caught.value.code, caught.value.param) == (
        400,
        "prompt_not_understood",
        "query.3",
    )


def test_several_turns_are_refused_because_their_borders_could_have_been_typed(
    chat: ChatFormat, prompts: RenderedPrompts
):
    turns = (*USER, Message(role="assistant", content="Why not?"), Message(role="user", content="Tell me."))
    rendered = chat.prompt_text(turns)
    with pytest.raises(ApiError, match="not one user message"):
        prompts.pair(rendered + "Air.", rendered, where="query.0")


def chat_of(directory: Path, template: str, *, drops: str | None = None) -> ChatFormat:
    tokenizer = AutoTokenizer.from_pretrained(str(make_tiny_tokenizer(directory)))
    if drops is not None:
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(drops, "")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(directory))
    return load_chat_format(directory)


def test_renderings_are_counted_over_all_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A template that trims renders none of the readings here, so that all are tried: borders times separators."""
    chat = chat_of(
        tmp_path,
        "{% for m in messages %}{% if m['role'] == 'user' %}User: {% endif %}{{ m['content'] | trim }}\n\n"
        "{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}",
    )
    prompts = RenderedPrompts(chat)
    num_rendered = 0

    def prompt_text(messages: Sequence[Message]) -> str:
        nonlocal num_rendered
        num_rendered += 1
        return ChatFormat.prompt_text(chat, messages)

    monkeypatch.setattr(chat, "prompt_text", prompt_text)
    with pytest.raises(ApiError, match="more than 128 places"):
        prompts.pair("x" + " \n\nUser: " * 60 + "y" + " \n\nAssistant: " * 60 + "z", None, where="query.0")
    assert 0 < num_rendered <= 2 * 128


def test_borders_that_are_one_to_the_critic_are_no_ambiguity(tmp_path: Path):
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    query = "Why?\n\nAir."
    whole = chat_of(tmp_path / "whole", template)
    with pytest.raises(ApiError, match="2 readings"):
        RenderedPrompts(whole).pair(query, None, where="query.0")
    without_lines = chat_of(tmp_path / "without", template, drops="\n")
    found = RenderedPrompts(without_lines).pair(query, None, where="query.0")
    assert found == Pair((Message(role="user", content="Why?"),), "\nAir.")


def test_of_readings_of_the_same_tokens_the_one_with_fewest_messages_is_taken(tmp_path: Path):
    chat = chat_of(
        tmp_path,
        "{% if messages[0]['role'] == 'user' %}System: You help.\n{% endif %}"
        "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}Answer: ",
    )
    rendered = chat.prompt_text(USER)
    assert rendered == chat.prompt_text((Message(role="system", content="You help."), *USER))
    for prompt in (rendered, None):
        assert RenderedPrompts(chat).pair(f"{rendered}Air.", prompt, where="query.0") == Pair(USER, "Air.")


def test_messages_with_nothing_between_them_have_many_readings_of_the_same_tokens(tmp_path: Path):
    chat = chat_of(
        tmp_path,
        "{% if messages[0]['role'] == 'user' %}One: {% else %}Two: {% endif %}"
        "{% for m in messages %}{{ m['content'] }}{% endfor %}\nAnswer: ",
    )
    rendered = chat.prompt_text(SYSTEM)
    for prompt in (rendered, None):
        found = RenderedPrompts(chat).pair(f"{rendered}Air.", prompt, where="query.0")
        assert [message.role for message in found.messages] == ["system", "user"]
        assert all(message.content for message in found.messages)
        assert chat.prompt_ids(found.messages) == chat.prompt_ids(SYSTEM)


def test_many_stop_and_padding_tokens_are_left_out(chat: ChatFormat, prompts: RenderedPrompts):
    end, pad = chat.tokenizer.convert_ids_to_tokens([chat.end_of_turn_id, chat.pad_token_id])
    rendered = chat.prompt_text(USER)
    query = f"{rendered}Air.{end}{pad * 1000}{end}"
    assert prompts.pair(query, rendered, where="query.0") == Pair(USER, "Air.")
    assert prompts.pair(rendered + end, None, where="query.0") == Pair(USER, "")
