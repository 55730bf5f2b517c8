from __future__ import annotations

from typing import Any

import pytest

from gad_ray.batch import Message
from gad_ray.data.rows import EXCERPT_CHARACTERS, Place, RawRow, Reason, Rejection
from gad_ray.data.validate import RowValidator, ValidRow, content_id, prompt_key


def count_prompt_words(messages: tuple[Message, ...]) -> int:
    return sum(len(message.content.split()) for message in messages)


def count_words(text: str) -> int:
    return len(text.split())


PLACE = Place(file="rows.jsonl", number=7)


def check(**fields: Any) -> ValidRow | Rejection:
    validator = RowValidator(
        max_prompt_tokens=10,
        max_teacher_tokens=10,
        count_prompt_tokens=count_prompt_words,
        count_response_tokens=count_words,
    )
    return validator.check(RawRow(place=PLACE, fields=fields))


def valid(**fields: Any) -> ValidRow:
    row = check(**fields)
    assert isinstance(row, ValidRow), row
    return row


def turn(role: str, content: Any = "hi", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


REJECTED: list[tuple[dict[str, Any], Reason, str]] = [
    ({}, Reason.NO_PROMPT, "the row has: teacher_response"),
    ({"content": None}, Reason.NO_PROMPT, "none of content, prompt, messages"),
    ({"content": ""}, Reason.EMPTY_PROMPT, "content is empty"),
    ({"prompt": " \n\t\u3000"}, Reason.EMPTY_PROMPT, "prompt is empty"),
    ({"messages": []}, Reason.EMPTY_PROMPT, "empty list"),
    ({"messages": [turn("user", " ")]}, Reason.EMPTY_PROMPT, "messages[0]"),
    ({"content": "hi", "teacher_response": None}, Reason.NO_RESPONSE, "the row has: content"),
    ({"content": "hi", "teacher_response": " \n"}, Reason.EMPTY_RESPONSE, "white space"),
    ({"content": "hi", "teacher_response": 5}, Reason.NOT_TEXT, "teacher_response is a int"),
    ({"content": "hi", "teacher_response": ["a"]}, Reason.NOT_TEXT, "teacher_response is a list"),
    ({"content": 3.5}, Reason.NOT_TEXT, "content is a float"),
    ({"content": {"role": "user", "content": "hi"}}, Reason.NOT_TEXT, "content is a dict"),
    ({"messages": ["hi"]}, Reason.NOT_TEXT, "messages[0] is a str"),
    ({"messages": [turn("user", [{"type": "image"}])]}, Reason.NOT_TEXT, "content of messages[0] is a list"),
    ({"messages": [turn("user", None)]}, Reason.NOT_TEXT, "NoneType"),
    ({"messages": [turn("user", tool_calls=[{}])]}, Reason.NOT_TEXT, "tool_calls"),
    (
        {"messages": [turn("user"), turn("assistant")]},
        Reason.WRONG_ROLES,
        "from the assistant, not from the user",
    ),
    ({"messages": [turn("user"), turn("user")]}, Reason.WRONG_ROLES, "take turns"),
    ({"messages": [turn("assistant"), turn("user")]}, Reason.WRONG_ROLES, "take turns"),
    ({"messages": [turn("system")]}, Reason.WRONG_ROLES, "take turns"),
    ({"messages": [turn("user"), turn("system"), turn("user")]}, Reason.WRONG_ROLES, "take turns"),
    ({"messages": [turn("tool")]}, Reason.WRONG_ROLES, "'tool'"),
    ({"messages": [{"from": "human", "value": "hi"}]}, Reason.WRONG_ROLES, "None"),
    ({"content": "a", "prompt": "b"}, Reason.CONFLICTING_PROMPTS, "content and prompt"),
    ({"content": "donâ€™t"}, Reason.MOJIBAKE, "content: 'â€' at character 3"),
    ({"messages": [turn("system", "Ã©t"), turn("user")]}, Reason.MOJIBAKE, "messages[0]"),
    ({"content": "hi", "teacher_response": "a\ufffd"}, Reason.MOJIBAKE, "teacher_response"),
    ({"content": "a\x00b"}, Reason.CONTROL_CHARACTERS, "U+0000"),
    ({"content": "hi", "teacher_response": "\x1b[31mred"}, Reason.CONTROL_CHARACTERS, "U+001B"),
    ({"content": "a\udfffb"}, Reason.LONE_SURROGATE, "U+DFFF"),
    ({"content": "hi", "id": ""}, Reason.BAD_ID, "''"),
    ({"content": "hi", "id": "a\nb"}, Reason.BAD_ID, "not printable"),
    ({"content": "hi", "id": "x" * 257}, Reason.BAD_ID, "longer than 256"),
    ({"content": "hi", "id": 1.0}, Reason.BAD_ID, "float"),
    ({"content": "hi", "id": True}, Reason.BAD_ID, "bool"),
    ({"content": "hi", "meta": "text"}, Reason.BAD_META, "meta is a str"),
    ({"content": "hi", "meta": {"a": {(1, 2): 3}}}, Reason.BAD_META, "cannot be kept"),
    ({"content": "w " * 11}, Reason.LONG_PROMPT, "11 tokens; max_prompt_tokens is 10"),
    (
        {"content": "hi", "teacher_response": "w " * 11},
        Reason.LONG_RESPONSE,
        "11 tokens; max_teacher_tokens is 10",
    ),
]


@pytest.mark.parametrize(("fields", "reason", "detail"), REJECTED)
def test_an_unusable_row_is_rejected_with_its_reason(
    fields: dict[str, Any], reason: Reason, detail: str
) -> None:
    rejection = check(**{"teacher_response": "answer"} | fields)
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.place) == (reason, PLACE)
    assert detail in rejection.detail
    assert len(rejection.excerpt) <= EXCERPT_CHARACTERS


@pytest.mark.parametrize("name", ["content", "prompt", "messages"])
def test_a_prompt_is_a_string_or_a_conversation_under_any_of_its_names(name: str) -> None:
    assert valid(**{name: " hi\n", "teacher_response": " yo "}).example.messages == (
        Message(role="user", content=" hi\n"),
    )
    roles = ("system", "user", "assistant", "user")
    conversation = valid(**{name: [turn(role, role) for role in roles], "teacher_response": "yo"})
    assert conversation.example.messages == tuple(Message(role=role, content=role) for role in roles)
    assert conversation.num_prompt_tokens == 4


def test_text_is_kept_to_the_letter() -> None:
    row = valid(content="  a\r\n\tb ", teacher_response="\n c  ")
    assert row.example.messages[0].content == "  a\r\n\tb "
    assert row.example.teacher_response == "\n c  "


def test_two_prompt_fields_that_say_the_same_do_not_conflict() -> None:
    assert valid(content="hi", messages=[turn("user")], teacher_response="yo").example.messages == (
        Message(role="user", content="hi"),
    )


def test_a_text_of_exactly_the_longest_length_is_usable() -> None:
    row = valid(content="w " * 10, teacher_response="w " * 10)
    assert (row.num_prompt_tokens, row.num_response_tokens) == (10, 10)


def test_an_own_id_is_kept_and_a_number_becomes_its_digits() -> None:
    assert valid(content="hi", teacher_response="yo", id="q-1").example.id == "q-1"
    assert valid(content="hi", teacher_response="yo", id=12).example.id == "12"


def test_the_id_of_a_row_without_one_depends_on_its_text_alone() -> None:
    row = valid(content="hi", teacher_response="yo", meta={"a": "b"})
    # sha256 of [[["user","hi"]],"yo"]
    assert row.example.id == content_id([Message(role="user", content="hi")], "yo") == "ca586ee6d5824f6a"
    assert not row.has_own_id
    assert valid(content="hi", teacher_response="other").example.id != row.example.id
    assert valid(content="hi there", teacher_response="yo").example.id != row.example.id


def test_meta_becomes_text_and_what_is_absent_is_left_out() -> None:
    meta = {"a": "x", "n": 3, "flag": True, "none": None, "nested": {"k": ["é"]}}
    row = valid(content="hi", teacher_response="yo", meta=meta)
    assert row.example.meta == {"a": "x", "n": "3", "flag": "true", "nested": '{"k": ["é"]}'}


def test_prompts_that_differ_in_white_space_alone_are_the_same() -> None:
    def key(*pairs: tuple[str, str]) -> bytes:
        return prompt_key([Message(role=role, content=content) for role, content in pairs])

    assert key(("user", " a  b\n")) == key(("user", "a b"))
    assert key(("user", "a b")) != key(("user", "ab"))
    assert key(("user", "a b")) != key(("system", "s"), ("user", "a b"))
