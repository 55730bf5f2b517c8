"""What stands beside or around the text is converted by name or refused by name, and never dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gad_ray.batch import Message
from gad_ray.data.dataset import LoadedData
from gad_ray.data.layout import Layout, LayoutError, opened_thought
from gad_ray.data.rows import Reason
from gad_ray.data.stats import describe
from gad_ray.errors import DataError

WriteJsonl = Callable[[str, Iterable[Mapping[str, Any]]], Path]
Load = Callable[..., LoadedData]

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "It's what?"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def arranged(fields: Mapping[str, object], **layout: Any) -> tuple[dict[str, object], tuple[str, ...]]:
    row, made = Layout(**layout).arrange(fields)
    return {name: value for name, value in row.items() if value is not None}, made


def refused(fields: Mapping[str, object], **layout: Any) -> LayoutError:
    with pytest.raises(LayoutError) as caught:
        Layout(**layout).arrange(fields)
    return caught.value


def test_a_plain_row_is_left_as_it_is() -> None:
    row = {
        "id": 1,
        "content": "q [1]",
        "teacher_response": "a",
        "meta": {"system": "x"},
        "system": "",
        "history": [],
    }
    kept = {"id": 1, "content": "q [1]", "teacher_response": "a", "meta": {"system": "x"}}
    assert arranged(row) == (kept, ())


@pytest.mark.parametrize(
    ("text", "kind"),
    [(json.dumps(TURNS), "JSON"), (repr(TURNS), "Python's repr"), (f" {TURNS!r}\n", "Python's repr")],
)
def test_a_conversation_stored_as_text_becomes_messages(text: str, kind: str) -> None:
    row, made = arranged({"prompt": text, "teacher_response": "a"})
    assert row["prompt"] == TURNS
    assert made == (f"prompt stored as {kind} → messages",)


@pytest.mark.parametrize(
    "text",
    [
        "[{'role': 'user', 'content': 'a'}\n {'role': 'user', 'content': 'b'}]",  # NumPy's repr
        "array([{'role': 'user', 'content': 'a'}], dtype=object)",
        '[{"role": "user", "content": "cut off}]',
        '[{"role": "tool", "content": "a"}]',
        "[{'role': 'user', 'content': " + "(" * 5000 + ")" * 5000 + "}]",
    ],
)
def test_a_stored_conversation_that_cannot_be_read_is_refused_by_name(text: str) -> None:
    assert refused({"content": text, "teacher_response": "a"}).reason is Reason.STORED_CONVERSATION


@pytest.mark.parametrize(
    "text",
    [
        '{"role": "admin", "name": "Ada"}',
        '[{"role": "user", "content": "a"}] What does this JSON mean?',
        "[1, 2, 3]",
        "{'value': 3}",
    ],
)
def test_json_that_is_no_conversation_stays_text(text: str) -> None:
    assert arranged({"content": text, "teacher_response": "a"})[0]["content"] == text


def test_sharegpt_is_parted_into_prompt_and_response() -> None:
    row, made = arranged({"conversations": [{"from": "system", "value": "s"}, *SHAREGPT]})
    assert row == {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        "teacher_response": "a",
    }
    assert made == ("conversations → prompt and response",)
    assert arranged({"conversations": json.dumps(SHAREGPT)})[0]["teacher_response"] == "a"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"conversations": [{"from": "observation", "value": "x"}]}, "not a list of turns"),
        ({"conversations": SHAREGPT, "content": "q"}, "both given"),
        ({"conversations": SHAREGPT, "teacher_response": "b"}, "is given too"),
        ({"content": "q", "teacher_response": TURNS}, "holds messages, not one answer"),
    ],
)
def test_what_has_two_readings_or_none_is_refused(fields: dict[str, object], told: str) -> None:
    assert told in refused(fields).detail


def test_alpaca_rows_are_prompt_input_and_response() -> None:
    row, made = arranged({"instruction": "Translate.", "input": "Haus", "output": "house"})
    assert row == {
        "content": [{"role": "user", "content": "Translate.\n\nHaus"}],
        "teacher_response": "house",
    }
    assert made == ("instruction, input, output → prompt and response",)
    assert arranged({"instruction": "Hi", "input": "", "output": "a"})[0]["content"] == "Hi"


def test_a_response_of_one_message_is_its_text() -> None:
    answer = [{"role": "assistant", "content": "a"}]
    for given in (answer, repr(answer)):
        row, made = arranged({"content": "q", "teacher_response": given})
        assert row["teacher_response"] == "a"
        assert made == ("teacher_response of one message → its text",)


@pytest.mark.parametrize("column", ["system", "input", "history", "images", "tools", "instruction"])
def test_a_column_beside_the_prompt_is_refused_until_it_is_said_what_it_is(column: str) -> None:
    row = {"content": "q", "teacher_response": "a", column: ["x"]}
    error = refused(row)
    assert error.reason is Reason.UNMAPPED_COLUMN
    assert column in error.detail
    assert "data.columns" in error.detail
    assert arranged(row, columns={column: "ignore"}) == ({"content": "q", "teacher_response": "a"}, ())


def test_mapped_columns_go_where_they_belong() -> None:
    row = {"ask": "q", "reply": "a", "persona": "s", "context": "i", "past": [["h", "r"]]}
    columns = {
        "ask": "prompt",
        "reply": "response",
        "persona": "system",
        "context": "input",
        "past": "history",
    }
    got, made = arranged(row, columns=columns)
    assert got["content"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "h"},
        {"role": "assistant", "content": "r"},
        {"role": "user", "content": "q\n\ni"},
    ]
    assert got["teacher_response"] == "a"
    assert "column persona → system" in made


def test_two_system_texts_are_refused() -> None:
    row = {"messages": TURNS, "teacher_response": "a", "system": "s"}
    assert refused(row, columns={"system": "system"}).reason is Reason.CONFLICTING_PROMPTS


@pytest.mark.parametrize(
    "text",
    ["<think>t</think>\n\na", "t\n</think>\na", "<think>t", "[THINK]t[/THINK]a", "<thinking>t</thinking>a"],
)
def test_thoughts_are_refused_unless_they_are_to_be_kept(text: str) -> None:
    assert refused({"content": "q", "teacher_response": text}).reason is Reason.THOUGHT
    row, made = arranged({"content": "q", "teacher_response": text}, thoughts="keep")
    assert (row["teacher_response"], made) == (text, ())


@pytest.mark.parametrize("text", ["<think>t</think>\n\na", "t\n</think>\na", "<think></think>a"])
def test_one_closed_thought_at_the_beginning_can_be_stripped(text: str) -> None:
    row, made = arranged({"content": "q", "teacher_response": text}, thoughts="strip")
    assert (row["teacher_response"], made) == ("a", ("thoughts stripped",))


@pytest.mark.parametrize("text", ["<think>t", "<think>t</think>a<think>u</think>b", "a</think>b</think>"])
def test_other_thoughts_are_not_stripped_by_guess(text: str) -> None:
    assert refused({"content": "q", "teacher_response": text}, thoughts="strip").reason is Reason.THOUGHT


def test_a_text_about_the_tag_is_no_thought() -> None:
    assert arranged({"content": "q", "teacher_response": "The tag <think> opens a thought."})[1] == ()


def test_a_prompt_that_opens_a_thought_is_seen() -> None:
    assert opened_thought(lambda _: "<|im_start|>assistant\n<think>\n") == "<think>"
    assert opened_thought(lambda _: "<|im_start|>assistant\n<think>\n\n</think>\n\n") is None


def test_conversions_and_unused_columns_are_counted_and_told(write_jsonl: WriteJsonl, load: Load) -> None:
    path = write_jsonl(
        "a.jsonl",
        [
            {"content": repr([{"role": "user", "content": "one"}]), "teacher_response": "a", "notes": "n"},
            {"content": "two", "teacher_response": "<think>t</think>b", "rank": 3},
        ],
    )
    data = load(path, heldout_prompts=0, thoughts="strip")
    assert data.train[0].messages == (Message(role="user", content="one"),)
    assert data.report.conversions == {
        "content stored as Python's repr → messages": 1,
        "thoughts stripped": 1,
    }
    assert data.report.unused_columns == ("notes",)
    told = "\n".join(describe(data))
    assert "converted, 1 rows: thoughts stripped" in told
    assert "not used: 'notes'" in told


def test_parquet_columns_are_read_where_they_are_known_or_mapped(tmp_path: Path, load: Load) -> None:
    rows = [{"ask": "q", "teacher_response": "a", "persona": "s", "system": "x", "note": "n"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="system stands beside the prompt"):
        load(tmp_path / "a.parquet", heldout_prompts=0, columns={"ask": "prompt"})
    columns = {"ask": "prompt", "persona": "system", "system": "ignore"}
    data = load(tmp_path / "a.parquet", heldout_prompts=0, columns=columns)
    assert data.train[0].messages[0] == Message(role="system", content="s")
    assert data.report.unused_columns == ("note",)


def test_a_parquet_file_of_sharegpt_is_read(tmp_path: Path, load: Load) -> None:
    pq.write_table(pa.Table.from_pylist([{"conversations": SHAREGPT}]), tmp_path / "a.parquet")
    (example,) = load(tmp_path / "a.parquet", heldout_prompts=0).train
    assert (example.messages[0].content, example.teacher_response) == ("q", "a")
