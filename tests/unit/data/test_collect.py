"""Collecting answers, against a real HTTP server on a loopback port."""

from __future__ import annotations

import asyncio
import email.utils
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gad_ray import __version__
from gad_ray.data.collect import CollectProgress, CollectSettings, collect
from gad_ray.errors import ConfigError, DataError, GadError
from tests.endpoint import Reply, Teacher


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    server = Teacher()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def write_prompts(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings_for(server: Teacher, tmp_path: Path, prompts: list[str], **changes: Any) -> CollectSettings:
    rows = [{"id": f"p{i}", "content": text} for i, text in enumerate(prompts)]
    fields: dict[str, Any] = {
        "endpoint": server.endpoint,
        "model": "teacher",
        "input": write_prompts(tmp_path / "prompts.jsonl", rows),
        "output": tmp_path / "pairs.parquet",
        "backoff_s": 0.001,
        "max_backoff_s": 0.002,
        "timeout_s": 20.0,
    }
    return CollectSettings(**{**fields, **changes})


def pairs_of(settings: CollectSettings) -> dict[str, str]:
    rows = pq.read_table(settings.output).to_pylist()
    return {row["id"]: row["teacher_response"] for row in rows}


def rejects_of(settings: CollectSettings) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in settings.rejected.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: (row["status"], row["reason"]) for row in rows}


# --- What is written


def test_pairs_are_written_in_the_order_of_the_input_with_how_they_came_to_be(
    teacher: Teacher, tmp_path: Path
) -> None:
    first_may_go = threading.Event()

    def script(prompt: str, attempt: int) -> Reply:
        if prompt == "one":  # answered last
            return Reply(text=" eins\n", until=first_may_go)
        if prompt == "three":
            first_may_go.set()
        return Reply(text={"two": "zwei", "three": "drei"}[prompt])

    teacher.script = script
    settings = settings_for(
        teacher, tmp_path, [], teacher="Big Teacher", temperature=0.5, max_tokens=9, seed=3
    )
    write_prompts(
        settings.input,
        [
            {"id": "a", "content": "one", "category": "count", "lang": "en"},
            {"id": "b", "content": "two", "category": "count", "tags": ["x"]},
            {"id": "c", "content": "three", "category": 7},
        ],
    )
    before = datetime.now(UTC).replace(microsecond=0)
    report = collect(settings)
    table = pq.read_table(settings.output)

    assert table.column_names == ["id", "content", "teacher_response", "meta"]
    rows = table.to_pylist()
    assert [(r["id"], r["content"], r["teacher_response"]) for r in rows] == [
        ("a", "one", "eins"),
        ("b", "two", "zwei"),
        ("c", "three", "drei"),
    ]
    meta = rows[0]["meta"]
    assert before <= datetime.fromisoformat(meta.pop("collected_at")) <= datetime.now(UTC)
    assert meta == {
        "teacher": "Big Teacher",
        "model": "teacher-v2",
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 3,
        "finish_reason": "stop",
        "category": '"count"',  # text in one row and a number in another: kept as JSON
        "lang": "en",
        "tags": None,
        "tool": f"gad-ray {__version__}",
    }
    assert rows[1]["meta"]["tags"] == '["x"]'
    assert (report.num_prompts, report.num_pairs, report.num_rejected) == (3, 3, {})
    assert report.completion_tokens == 9
    assert settings.rejected.read_text() == ""
    assert not list(tmp_path.glob("*.partial"))


def test_the_request_carries_the_sampling_settings_and_the_system_prompt(
    teacher: Teacher, tmp_path: Path
) -> None:
    settings = settings_for(
        teacher,
        tmp_path,
        ["hello"],
        temperature=0.3,
        top_p=0.9,
        max_tokens=7,
        seed=5,
        system_prompt="Be short.",
    )
    collect(settings)
    assert teacher.requests == [
        {
            "model": "teacher",
            "temperature": 0.3,
            "top_p": 0.9,
            "max_tokens": 7,
            "seed": 5,
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "hello"},
            ],
        }
    ]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_endpoint_may_be_given_with_or_without_its_path(
    teacher: Teacher, tmp_path: Path, suffix: str
) -> None:
    collect(settings_for(teacher, tmp_path, ["hello"], endpoint=teacher.endpoint + suffix))
    assert teacher.paths == ["/v1/chat/completions"]


def test_chat_messages_are_sent_as_they_are_and_written_as_messages(teacher: Teacher, tmp_path: Path) -> None:
    settings = settings_for(teacher, tmp_path, [])
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "bye"},
    ]
    write_prompts(settings.input, [{"id": "a", "messages": chat}, {"id": "b", "prompt": "plain"}])
    collect(settings)
    rows = pq.read_table(settings.output).to_pylist()
    assert rows[0]["content"] == chat
    assert rows[1]["content"] == [{"role": "user", "content": "plain"}]
    assert chat in [request["messages"] for request in teacher.requests]


def test_cut_empty_and_filtered_answers_are_kept_out_with_their_reasons(
    teacher: Teacher, tmp_path: Path
) -> None:
    replies = {
        "cut": Reply(text="and so", finish_reason="length"),
        "empty": Reply(text=" \n"),
        "null": Reply(text=None),
        "filtered": Reply(text="", finish_reason="content_filter"),
        "good": Reply(text="yes"),
        "half": Reply(text="broken \ud83d emoji"),
    }
    teacher.script = lambda prompt, attempt: replies[prompt]
    settings = settings_for(teacher, tmp_path, list(replies), max_tokens=2)
    report = collect(settings)
    assert pairs_of(settings) == {"p4": "yes"}
    assert rejects_of(settings) == {
        "p0": ("cut", "reached max_tokens (2)"),
        "p1": ("empty", "no text in the answer"),
        "p2": ("empty", "no text in the answer"),
        "p3": ("refused", "finish_reason is content_filter"),
        "p5": ("refused", "holds a lone surrogate, which no UTF-8 file can carry"),
    }
    assert report.num_rejected == {"cut": 1, "empty": 2, "refused": 2}


def test_no_usable_answer_at_all_is_an_error_that_names_the_rejects(teacher: Teacher, tmp_path: Path) -> None:
    teacher.script = lambda prompt, attempt: Reply(finish_reason="length")
    settings = settings_for(teacher, tmp_path, ["one", "two"])
    with pytest.raises(DataError, match="not one of 2 answers") as caught:
        collect(settings)
    assert caught.value.where == str(settings.rejected)
    assert len(rejects_of(settings)) == 2
    assert not settings.output.exists()


# --- Retries


def test_a_429_is_asked_again_no_sooner_than_the_endpoint_says(teacher: Teacher, tmp_path: Path) -> None:
    slept: list[float] = []

    def script(prompt: str, attempt: int) -> Reply:
        if attempt == 1:
            return Reply(status=429, headers={"Retry-After": "0.05"})
        if attempt == 2:
            soon = datetime.now(UTC) - timedelta(seconds=5)
            return Reply(status=429, headers={"Retry-After": email.utils.format_datetime(soon)})
        return Reply()

    real_sleep = asyncio.sleep

    async def sleep(seconds: float, *rest: Any) -> None:
        slept.append(seconds)
        await real_sleep(0)

    teacher.script = script
    settings = settings_for(teacher, tmp_path, ["one"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        report = collect(settings)
    waits = [seconds for seconds in slept if seconds > 0]
    assert len(waits) == 2
    assert 0.05 <= waits[0] <= 0.05 + settings.max_backoff_s
    assert waits[1] <= settings.max_backoff_s
    assert report.num_retries == 2
    assert pairs_of(settings) == {"p0": "fine"}


def test_a_prompt_that_always_gets_500_is_rejected_and_the_others_go_on(
    teacher: Teacher, tmp_path: Path
) -> None:
    teacher.script = lambda prompt, attempt: Reply(status=500, body="boom") if prompt == "bad" else Reply()
    settings = settings_for(teacher, tmp_path, ["good", "bad", "also good"], max_attempts=3)
    report = collect(settings)
    assert teacher.prompts().count("bad") == 3
    assert set(pairs_of(settings)) == {"p0", "p2"}
    assert rejects_of(settings) == {"p1": ("failed", "HTTP 500: boom")}
    assert report.num_retries == 2


def test_an_answer_slower_than_the_time_limit_is_asked_for_again(teacher: Teacher, tmp_path: Path) -> None:
    released = threading.Event()
    teacher.script = lambda prompt, attempt: Reply(until=released) if attempt == 1 else Reply(text="quick")
    settings = settings_for(teacher, tmp_path, ["one"], timeout_s=0.5)
    try:
        report = collect(settings)
    finally:
        released.set()
    assert pairs_of(settings) == {"p0": "quick"}
    assert report.num_retries >= 1


@pytest.mark.parametrize("body", ["<html>", "[]", '{"choices": []}', '{"choices": [{"message": null}]}'])
def test_an_answer_that_is_no_completion_is_asked_for_again(
    teacher: Teacher, tmp_path: Path, body: str
) -> None:
    teacher.script = lambda prompt, attempt: Reply(body=body) if attempt == 1 else Reply()
    settings = settings_for(teacher, tmp_path, ["one"])
    assert collect(settings).num_retries == 1
    assert pairs_of(settings) == {"p0": "fine"}


def test_a_400_is_not_asked_again(teacher: Teacher, tmp_path: Path) -> None:
    teacher.script = lambda prompt, attempt: (
        Reply(status=400, body="too long") if prompt == "long" else Reply()
    )
    settings = settings_for(teacher, tmp_path, ["long", "short"])
    collect(settings)
    assert teacher.prompts().count("long") == 1
    assert rejects_of(settings) == {"p0": ("failed", "HTTP 400: too long")}


def test_many_failures_in_a_row_end_the_collection_and_keep_what_was_answered(
    teacher: Teacher, tmp_path: Path
) -> None:
    teacher.script = lambda prompt, attempt: Reply() if prompt == "0" else Reply(status=503)
    settings = settings_for(
        teacher,
        tmp_path,
        [str(i) for i in range(30)],
        concurrency=1,
        max_attempts=1,
        max_failures_in_a_row=4,
    )
    with pytest.raises(GadError, match="4 prompts failed one after the other; the last: HTTP 503"):
        collect(settings)
    assert teacher.prompts() == ["0", "1", "2", "3", "4"]
    teacher.script = lambda prompt, attempt: Reply()
    report = collect(settings)
    assert (report.num_resumed, report.num_pairs) == (1, 30)


def test_an_endpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = Teacher()
    gone.close()
    settings = settings_for(gone, tmp_path, ["one"], max_attempts=2, max_failures_in_a_row=1)
    with pytest.raises(GadError, match="ConnectError") as caught:
        collect(settings)
    assert gone.endpoint in str(caught.value)


def test_no_more_requests_are_under_way_than_allowed(teacher: Teacher, tmp_path: Path) -> None:
    both_there = threading.Barrier(2)

    def script(prompt: str, attempt: int) -> Reply:
        both_there.wait(30)  # passes only when two requests are under way at once
        return Reply()

    teacher.script = script
    collect(settings_for(teacher, tmp_path, [str(i) for i in range(8)], concurrency=2))
    assert teacher.most_at_once == 2


# --- The key


def test_a_wrong_key_stops_at_once_names_its_variable_and_is_not_repeated(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret")
    teacher.script = lambda prompt, attempt: Reply(status=401, body="Incorrect key: sk-very-secret")
    settings = settings_for(
        teacher, tmp_path, [str(i) for i in range(20)], concurrency=1, api_key_env="TEACHER_KEY"
    )
    with pytest.raises(ConfigError, match=r"HTTP 401: Incorrect key: \*\*\*") as caught:
        collect(settings)
    assert "TEACHER_KEY, which is set but not accepted" in str(caught.value)
    assert "sk-very-secret" not in str(caught.value)
    assert teacher.authorizations == ["Bearer sk-very-secret"]
    assert all("sk-very-secret" not in path.read_text() for path in tmp_path.glob("*.jsonl"))


def test_without_a_key_none_is_sent_and_a_401_says_that_it_is_not_set(
    teacher: Teacher, tmp_path: Path
) -> None:
    teacher.script = lambda prompt, attempt: Reply(status=401)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY, which is not set"):
        collect(settings_for(teacher, tmp_path, ["one"]))
    assert teacher.authorizations == [None]


def test_an_unknown_model_stops_at_once(teacher: Teacher, tmp_path: Path) -> None:
    teacher.script = lambda prompt, attempt: Reply(status=404, body="no such model")
    with pytest.raises(ConfigError, match="HTTP 404: no such model"):
        collect(settings_for(teacher, tmp_path, ["one", "two"], concurrency=1))
    assert len(teacher.requests) == 1


def test_a_key_that_no_header_can_carry_is_refused_unseen(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sécret")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY cannot stand in an HTTP header") as caught:
        collect(settings_for(teacher, tmp_path, ["one"]))
    assert "sk-s" not in str(caught.value)


# --- Going on after a break


class _BreakError(Exception):
    pass


def _break_after(count: int) -> Callable[[CollectProgress], None]:
    def on_progress(progress: CollectProgress) -> None:
        if progress.num_done == count:
            raise _BreakError

    return on_progress


def test_a_broken_collection_goes_on_where_it_stopped(teacher: Teacher, tmp_path: Path) -> None:
    prompts = [f"prompt {i}" for i in range(6)]
    settings = settings_for(teacher, tmp_path, prompts, concurrency=1)
    with pytest.raises(_BreakError):
        collect(settings, _break_after(3))
    assert not settings.output.exists()
    with settings.journal.open("ab") as journal:
        journal.write(b'{"id": "p3", "status": "o')  # as if cut while it was being written

    seen: list[CollectProgress] = []
    report = collect(settings, seen.append)
    assert teacher.prompts() == prompts
    assert report.num_resumed == 3
    assert [progress.num_done for progress in seen] == [4, 5, 6]
    assert list(pairs_of(settings)) == [f"p{i}" for i in range(6)]


def test_a_second_call_asks_for_failed_prompts_only(teacher: Teacher, tmp_path: Path) -> None:
    teacher.script = lambda prompt, attempt: Reply(status=500 if prompt == "two" else 200)
    settings = settings_for(teacher, tmp_path, ["one", "two"], max_attempts=1)
    collect(settings)
    teacher.script = lambda prompt, attempt: Reply(text="at last")
    report = collect(settings)
    assert teacher.prompts().count("one") == 1
    assert pairs_of(settings) == {"p0": "fine", "p1": "at last"}
    assert (report.num_rejected, report.num_resumed) == ({}, 1)


def test_a_finished_collection_asks_nothing_and_writes_the_same(teacher: Teacher, tmp_path: Path) -> None:
    settings = settings_for(teacher, tmp_path, ["one", "two"])
    collect(settings)
    written = settings.output.read_bytes()
    settings.output.unlink()
    collect(settings)
    assert len(teacher.requests) == 2
    assert settings.output.read_bytes() == written


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "other"}, "model was 'teacher', is 'other'"),
        ({"temperature": 0.7}, "temperature was None, is 0.7"),
        ({"system_prompt": "Short!"}, "system_prompt was None, is 'Short!'"),
    ],
)
def test_a_journal_of_other_settings_is_refused(
    teacher: Teacher, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    collect(settings_for(teacher, tmp_path, ["one"]))
    with pytest.raises(DataError, match=told):
        collect(settings_for(teacher, tmp_path, ["one"], **changes))


def test_a_journal_of_other_prompts_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    collect(settings_for(teacher, tmp_path, ["one"]))
    with pytest.raises(DataError, match="the prompts are others"):
        collect(settings_for(teacher, tmp_path, ["one, changed"]))
    assert len(teacher.requests) == 1


def test_the_same_model_on_another_port_may_go_on(teacher: Teacher, tmp_path: Path) -> None:
    collect(settings_for(teacher, tmp_path, ["one"]))
    report = collect(settings_for(teacher, tmp_path, ["one"], endpoint="http://127.0.0.1:1"))
    assert report.num_resumed == 1


def test_a_damaged_journal_line_is_named(teacher: Teacher, tmp_path: Path) -> None:
    settings = settings_for(teacher, tmp_path, ["one", "two"])
    collect(settings)
    lines = settings.journal.read_bytes().splitlines()
    settings.journal.write_bytes(b"\n".join([lines[0], b"{oops", lines[2], b""]))
    with pytest.raises(DataError, match="damaged journal line") as caught:
        collect(settings)
    assert caught.value.where == f"{settings.journal}:2"


def test_two_collections_do_not_share_a_journal(teacher: Teacher, tmp_path: Path) -> None:
    settings = settings_for(teacher, tmp_path, ["one"])

    def collect_again(progress: CollectProgress) -> None:
        with pytest.raises(DataError, match="another process is collecting"):
            collect_in_a_thread(settings)

    assert collect(settings, collect_again).num_pairs == 1


def collect_in_a_thread(settings: CollectSettings) -> None:
    raised: list[Exception] = []

    def run() -> None:
        try:
            collect(settings)
        except GadError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


# --- Bad input


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"content": "x"', "not JSON"),
        ('["x"]', "not an object but a list"),
        ('{"text": "x"}', "found none, only text"),
        ('{"content": "x", "prompt": "y"}', "found content, prompt"),
        ('{"content": "  "}', "content is empty"),
        ('{"content": 3}', "content is 3"),
        ('{"content": []}', r"content is \[\]"),
        ('{"content": "\\ud800"}', "lone surrogate"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', r"messages\[0\] is"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "last message is from assistant"),
        ('{"id": true, "content": "x"}', "id is True"),
        ('{"id": "first", "content": "x"}', "id 'first' is already on line 1"),
        ('{"content": "x", "teacher": "me"}', "key 'teacher' is written by the collection"),
    ],
)
def test_a_bad_prompt_is_refused_with_its_file_and_line_before_anything_is_asked(
    teacher: Teacher, tmp_path: Path, line: str, told: str
) -> None:
    settings = settings_for(teacher, tmp_path, [])
    settings.input.write_text(f'{{"id": "first", "content": "good"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=told) as caught:
        collect(settings)
    assert caught.value.where == f"{settings.input}:3"
    assert teacher.requests == []
    assert not settings.journal.exists()


def test_a_file_without_prompts_or_not_in_utf8_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    settings = settings_for(teacher, tmp_path, [])
    with pytest.raises(DataError, match="no prompts in the file"):
        collect(settings)
    settings.input.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot read prompts"):
        collect(settings)
    settings.input.unlink()
    with pytest.raises(DataError, match="cannot read prompts"):
        collect(settings)


def test_two_system_messages_are_refused(teacher: Teacher, tmp_path: Path) -> None:
    settings = settings_for(teacher, tmp_path, [], system_prompt="Be brief.")
    chat = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "hi"}]
    write_prompts(settings.input, [{"id": "a", "content": chat}])
    with pytest.raises(DataError, match="prompt 'a' brings a system message"):
        collect(settings)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"endpoint": "localhost:8000"}, "endpoint is 'localhost:8000'"),
        ({"endpoint": "http://me:secret@host"}, r"endpoint is 'http://…@host…'"),
        ({"output": Path("pairs.csv")}, "output is 'pairs.csv'"),
        ({"model": ""}, "model is ''"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"backoff_s": 5.0, "max_backoff_s": 1.0}, "backoff_s is 5.0"),
    ],
)
def test_a_setting_out_of_bounds_is_named(changes: dict[str, Any], told: str) -> None:
    fields: dict[str, Any] = {
        "endpoint": "http://host",
        "model": "m",
        "input": Path("in.jsonl"),
        "output": Path("out.parquet"),
    }
    with pytest.raises(ConfigError, match=told):
        CollectSettings(**{**fields, **changes})
