from pathlib import Path

import pytest

from gad_ray.batch import Message
from gad_ray.models.chat import load_chat_format
from gad_ray.models.pairs import Pair
from gad_ray.serving.envelope import ApiError
from gad_ray.serving.rendered import RenderedPrompts
from tests.tiny import make_tiny_tokenizer

USER = (Message(role="user", content="Why is the sky blue?"),)
SYSTEM = (Message(role="system", content="Be short."), *USER)


@pytest.fixture(scope="module", params=["chatml", "bracket"])
def prompts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RenderedPrompts:
    directory: Path = tmp_path_factory.mktemp(request.param)
    return RenderedPrompts(load_chat_format(make_tiny_tokenizer(directory, style=request.param)))


def query_of(prompts: RenderedPrompts, rendered: str, response: str) -> str:
    """As a trainer decodes a generation: with the end of turn, and padding."""
    chat = prompts._chat
    end, pad = chat.tokenizer.convert_ids_to_tokens([chat.end_of_turn_id, chat.pad_token_id])
    return f"{rendered}{response}{end}{pad}{pad}"


@pytest.mark.parametrize("messages", [USER, SYSTEM])
def test_what_the_template_rendered_is_taken_apart_again(
    prompts: RenderedPrompts, messages: tuple[Message, ...]
):
    rendered = prompts._chat.prompt_text(messages)
    query = query_of(prompts, rendered, "Because air scatters.")
    assert prompts.pair(query, rendered, where="query.0") == Pair(messages, "Because air scatters.")


@pytest.mark.parametrize("messages", [USER, SYSTEM])
def test_a_query_alone_is_taken_apart_where_it_has_one_reading(
    prompts: RenderedPrompts, messages: tuple[Message, ...]
):
    rendered = prompts._chat.prompt_text(messages)
    query = query_of(prompts, rendered, "Because air scatters.")
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


def test_several_turns_are_refused_because_their_borders_could_have_been_typed(prompts: RenderedPrompts):
    turns = (*USER, Message(role="assistant", content="Why not?"), Message(role="user", content="Tell me."))
    rendered = prompts._chat.prompt_text(turns)
    with pytest.raises(ApiError, match="not one user message"):
        prompts.pair(rendered + "Air.", rendered, where="query.0")
