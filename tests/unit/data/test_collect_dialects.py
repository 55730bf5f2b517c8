"""Endpoints of different vendors, against a real HTTP server on a loopback port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gad_ray.data import collect_reply
from gad_ray.data.collect import CollectSettings, collect
from gad_ray.errors import ConfigError, DataError, GadError
from tests.endpoint import Reply, Teacher
from tests.unit.data.test_collect import pairs_of, rejects_of, settings_for, write_prompts


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Teacher]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Teacher()
    yield server
    server.close()


def reply_with(message: object = None, **others: Any) -> Reply:
    fields = {"choices": [{"message": message or {"content": "yes"}, "finish_reason": "stop"}], **others}
    return Reply(body=json.dumps(fields))


def test_sampling_settings_are_sent_only_if_they_are_set(teacher: Teacher, tmp_path: Path) -> None:
    settings = settings_for(teacher, tmp_path, ["hello"])
    collect(settings)
    assert teacher.requests == [{"model": "teacher", "messages": [{"role": "user", "content": "hello"}]}]
    (row,) = pq.read_table(settings.output).to_pylist()
    assert not {"temperature", "top_p", "max_tokens", "seed"} & row["meta"].keys()


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
        ("/api/v3", "/api/v3/chat/completions"),
        ("/api/v3/chat/completions", "/api/v3/chat/completions"),
    ],
)
def test_a_base_url_that_has_a_path_is_taken_as_it_is(
    teacher: Teacher, tmp_path: Path, suffix: str, path: str
) -> None:
    collect(settings_for(teacher, tmp_path, ["hello"], endpoint=teacher.endpoint + suffix))
    assert teacher.paths == [path]


def test_a_whole_url_is_used_as_given_and_its_query_is_not_shown(teacher: Teacher, tmp_path: Path) -> None:
    url = f"{teacher.endpoint}/deployments/x/chat?api-version=7&key=secret"
    settings = settings_for(teacher, tmp_path, ["hello"], endpoint="", exact_url=url)
    teacher.script = lambda prompt, attempt: Reply(status=404, body="no such deployment")
    with pytest.raises(ConfigError) as caught:
        collect(settings)
    assert teacher.paths == ["/deployments/x/chat?api-version=7&key=secret"]
    assert "secret" not in str(caught.value)


def test_max_completion_tokens_is_learned_from_the_endpoint_and_kept(
    teacher: Teacher, tmp_path: Path
) -> None:
    error = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."

    def script(prompt: str, attempt: int) -> Reply:
        if "max_tokens" in teacher.requests[-1]:
            return Reply(status=400, body=json.dumps({"error": {"message": error, "param": "max_tokens"}}))
        return Reply()

    teacher.script = script
    settings = settings_for(teacher, tmp_path, ["one", "two"], max_tokens=9, concurrency=1)
    assert collect(settings).num_pairs == 2
    sent = [request.keys() & {"max_tokens", "max_completion_tokens"} for request in teacher.requests]
    assert sent == [{"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"}]


def test_max_completion_tokens_can_be_asked_for(teacher: Teacher, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"max_tokens": 9, "max_tokens_field": "max_completion_tokens"}
    collect(settings_for(teacher, tmp_path, ["one"], **fields))
    assert teacher.requests[0]["max_completion_tokens"] == 9
    assert "max_tokens" not in teacher.requests[0]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("temperature", "Unsupported value: 'temperature' does not support 0.5 with this model."),
        (
            "top_p",
            "`temperature` and `top_p` cannot both be specified for this model; `top_p` is not allowed.",
        ),
    ],
)
def test_a_sampling_setting_that_the_endpoint_refuses_is_named(
    teacher: Teacher, tmp_path: Path, name: str, error: str
) -> None:
    teacher.script = lambda prompt, attempt: Reply(status=400, body=json.dumps({"error": {"message": error}}))
    settings = settings_for(teacher, tmp_path, ["one", "two"], **{name: 0.5})
    with pytest.raises(ConfigError, match=f"the endpoint refuses {name} = 0.5") as caught:
        collect(settings)
    assert f"leave --{name.replace('_', '-')} out" in str(caught.value)


def test_chunks_of_text_are_joined_and_thoughts_among_them_left_out(teacher: Teacher, tmp_path: Path) -> None:
    chunks = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "Hello, "},
        {"type": "text", "text": "world."},
    ]
    teacher.script = lambda prompt, attempt: reply_with({"content": chunks})
    settings = settings_for(teacher, tmp_path, ["one"])
    collect(settings)
    assert pairs_of(settings) == {"p0": "Hello, world."}


ODD: dict[str, tuple[Reply, str, str]] = {
    "a word in usage": (
        reply_with(usage={"completion_tokens": "many"}),
        "unreadable",
        "usage.completion_tokens",
    ),
    "a huge number": (reply_with(usage={"prompt_tokens": 10**400}), "unreadable", "usage.prompt_tokens"),
    "deep": (
        Reply(body='{"choices": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        "unreadable",
        "nested too deep",
    ),
    "events": (Reply(body='data: {"choices": []}\n\ndata: [DONE]\n'), "unreadable", "streams its answer"),
    "an image": (reply_with({"content": [{"type": "image_url"}]}), "unreadable", "chunk of type 'image_url'"),
    "a number": (reply_with({"content": 3}), "unreadable", "content is a int"),
    "no JSON": (Reply(body="<html>"), "unreadable", "not JSON"),
    "no choices": (
        Reply(body='{"choices": [], "error": {"message": "over"}}'),
        "unreadable",
        "message: over",
    ),
    "a refusal": (reply_with({"content": None, "refusal": "No."}), "refused", "the model refuses: No."),
    "a tool": (reply_with({"content": None, "tool_calls": [{"id": "1"}]}), "refused", "calls a tool"),
    "a thought": (reply_with({"content": None, "reasoning_content": "hm"}), "empty", "only a thought"),
}


def test_each_odd_reply_is_one_rejected_row_that_is_not_asked_for_again(
    teacher: Teacher, tmp_path: Path
) -> None:
    teacher.script = lambda prompt, attempt: ODD[prompt][0] if prompt in ODD else Reply(text="yes")
    settings = settings_for(teacher, tmp_path, [*ODD, "good"], max_attempts=2)
    assert collect(settings).num_pairs == 1
    rejects = rejects_of(settings)
    for index, (_, status, told) in enumerate(ODD.values()):
        assert rejects[f"p{index}"][0] == status
        assert told in rejects[f"p{index}"][1]
    num_asked = len(teacher.requests)
    collect(settings)
    assert len(teacher.requests) == num_asked

    teacher.script = lambda prompt, attempt: Reply(text="yes")
    again = settings_for(teacher, tmp_path, [*ODD, "good"], max_attempts=2, retry_rejected=True)
    assert collect(again).num_pairs == len(ODD) + 1


def test_a_lone_surrogate_anywhere_in_a_reply_can_be_recorded(teacher: Teacher, tmp_path: Path) -> None:
    half = "\ud83d"
    teacher.script = lambda prompt, attempt: reply_with(model=half)
    settings = settings_for(teacher, tmp_path, ["one"])
    collect(settings)
    assert pq.read_table(settings.output).to_pylist()[0]["meta"]["model"] == "\ufffd"

    teacher.script = lambda prompt, attempt: Reply(body=json.dumps({"error": half}))
    other = settings_for(teacher, tmp_path, ["one"], output=tmp_path / "b.parquet", max_attempts=1)
    with pytest.raises(DataError, match="not one of 1 answers"):
        collect(other)
    assert rejects_of(other)["p0"][1].endswith(": \ufffd")


def test_a_reply_without_end_is_read_to_a_bound(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gad_ray.data.collect.MAX_REPLY_BYTES", 2**20)
    teacher.script = lambda prompt, attempt: Reply(text="x" * 2**22 if prompt == "long" else "yes")
    settings = settings_for(teacher, tmp_path, ["long", "good"])
    collect(settings)
    assert pairs_of(settings) == {"p1": "yes"}
    assert rejects_of(settings) == {"p0": ("unreadable", "the endpoint's answer is longer than 1 MiB")}
    assert collect_reply.MAX_REPLY_BYTES == 16 * 2**20


def test_many_unreadable_replies_end_the_collection(teacher: Teacher, tmp_path: Path) -> None:
    teacher.script = lambda prompt, attempt: Reply(body="data: {}\n\n")
    settings = settings_for(teacher, tmp_path, [str(i) for i in range(9)], max_failures_in_a_row=3)
    with pytest.raises(GadError, match="prompts failed one after the other"):
        collect(settings)


def test_integer_ids_are_ids_and_do_not_clash_with_text(teacher: Teacher, tmp_path: Path) -> None:
    settings = settings_for(teacher, tmp_path, [])
    write_prompts(settings.input, [{"id": 0, "content": "zero"}, {"id": 1, "content": "one"}])
    collect(settings)
    assert pairs_of(settings) == {"0": "fine", "1": "fine"}
    write_prompts(settings.input, [{"id": 0, "content": "zero"}, {"id": "0", "content": "one"}])
    with pytest.raises(DataError, match="id '0' is already on line 1"):
        collect(settings)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"content": "x", "system": "Be brief."}, "system stands beside the prompt"),
        ({"content": "[{'role': 'user', 'content': 'x'}]"}, "a conversation stored as text"),
    ],
)
def test_prompts_that_the_teacher_would_not_see_whole_are_refused(
    teacher: Teacher, tmp_path: Path, row: dict[str, str], told: str
) -> None:
    settings = settings_for(teacher, tmp_path, [])
    write_prompts(settings.input, [row])
    with pytest.raises(DataError, match=told):
        collect(settings)
    assert teacher.requests == []


def test_a_proxy_is_named_without_its_credentials(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    settings = settings_for(teacher, tmp_path, ["one"], endpoint="http://teacher.invalid", max_attempts=1)
    with pytest.raises(DataError, match="not one of 1 answers"):
        collect(settings)
    reason = rejects_of(settings)["p0"][1]
    assert "(through the proxy 127.0.0.1:1 of HTTP_PROXY)" in reason
    assert "secret" not in reason


def test_a_key_in_the_clear_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 20)
    source = write_prompts(tmp_path / "prompts.jsonl", [{"content": "one"}])
    settings = CollectSettings(
        endpoint="http://teacher.invalid",
        model="m",
        input=source,
        output=tmp_path / "o.parquet",
        max_attempts=1,
        timeout_s=0.2,
    )
    with pytest.raises(DataError):
        collect(settings)
    assert "the key for http://teacher.invalid is sent unencrypted" in caplog.text
    assert "kkk" not in caplog.text


def test_the_control_characters_of_an_endpoints_error_are_not_printed(
    teacher: Teacher, tmp_path: Path
) -> None:
    teacher.script = lambda prompt, attempt: Reply(status=404, body="\x1b[2Jgone\x07")
    with pytest.raises(ConfigError) as caught:
        collect(settings_for(teacher, tmp_path, ["one"]))
    assert "\x1b" not in str(caught.value)
    assert "\\x1b[2Jgone" in str(caught.value)


def test_the_column_of_prompts_has_the_type_of_all_prompts_whatever_was_answered(
    teacher: Teacher, tmp_path: Path
) -> None:
    teacher.script = lambda prompt, attempt: Reply(text="" if prompt == "two" else "yes")
    settings = settings_for(teacher, tmp_path, [])
    chat = [{"role": "user", "content": "two"}]
    write_prompts(settings.input, [{"id": "a", "content": "one"}, {"id": "b", "content": chat}])
    collect(settings)
    assert [row["content"] for row in pq.read_table(settings.output).to_pylist()] == [
        [{"role": "user", "content": "one"}]
    ]
