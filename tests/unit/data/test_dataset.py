from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gad_ray.batch import Example
from gad_ray.data.dataset import Lengths, LoadedData
from gad_ray.data.rows import Reason
from gad_ray.data.stats import describe
from gad_ray.errors import DataError

WriteJsonl = Callable[[str, Iterable[Mapping[str, Any]]], Path]
Load = Callable[..., LoadedData]


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "content": f"question {number}",
        "teacher_response": f"answer {number}",
    } | fields


def ids(examples: Iterable[Example]) -> list[str]:
    return [example.id for example in examples]


def quarantine_of(data: LoadedData) -> list[tuple[str, int, str]]:
    entries = map(json.loads, data.report.quarantine.path.read_text("utf-8").splitlines())
    return [(Path(entry["file"]).name, entry["line"], entry["reason"]) for entry in entries]


def test_rows_of_both_kinds_of_files_are_loaded_in_the_order_of_the_sources(
    tmp_path: Path, write_jsonl: WriteJsonl, load: Load
) -> None:
    pq.write_table(pa.Table.from_pylist([row(2), row(1)]), tmp_path / "b.parquet")
    write_jsonl("a.jsonl", [row(3)])
    data = load(tmp_path / "b.parquet", tmp_path / "*.jsonl", heldout_prompts=0)
    assert ids(data.train) == ["r2", "r1", "r3"]
    assert data.heldout == ()
    assert data.report.sources == (str(tmp_path / "b.parquet"), str(tmp_path / "a.jsonl"))


def test_bad_rows_of_every_stage_are_quarantined_with_file_line_and_reason(
    tmp_path: Path, load: Load
) -> None:
    good = json.dumps(row(1))
    path = tmp_path / "a.jsonl"
    rows = [
        "{broken",
        good,
        "",
        json.dumps(row(1)),
        json.dumps(row(2, content="donâ€™t")),
        json.dumps(row(3, teacher_response="w " * 11)),
        json.dumps(row(4)),
    ]
    path.write_text("\n".join(rows))
    data = load(path, heldout_prompts=0, max_teacher_tokens=10, max_quarantined_fraction=1.0)
    assert ids(data.train) == ["r1", "r4"]
    assert quarantine_of(data) == [
        ("a.jsonl", 1, "invalid_json"),
        ("a.jsonl", 4, "duplicate_id"),
        ("a.jsonl", 5, "mojibake"),
        ("a.jsonl", 6, "long_response"),
    ]
    assert data.report.quarantine.num_rows == 6


def test_too_many_bad_rows_are_refused_and_the_quarantine_file_stays_to_be_read(
    tmp_path: Path, write_jsonl: WriteJsonl, load: Load
) -> None:
    path = write_jsonl("a.jsonl", [row(i, teacher_response="" if i < 2 else "ok") for i in range(10)])
    with pytest.raises(DataError, match=r"2 of 10 rows \(20.0%\) cannot be used") as caught:
        load(path, heldout_prompts=2)
    quarantine = tmp_path / "out" / "quarantine.jsonl"
    assert str(quarantine) in str(caught.value)
    assert len(quarantine.read_text().splitlines()) == 2


def test_a_row_without_id_that_repeats_another_is_quarantined_as_a_repeated_row(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    same = {"content": "q", "teacher_response": "a"}
    path = write_jsonl("a.jsonl", [same, {"content": "q", "teacher_response": "b"}, same])
    data = load(path, heldout_prompts=0, max_quarantined_fraction=1.0)
    assert quarantine_of(data) == [("a.jsonl", 3, "duplicate_row")]
    assert data.report.num_repeated_prompts == 1


def test_an_id_given_in_two_files_counts_as_a_duplicate_of_the_first(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    first, second = (
        write_jsonl("a.jsonl", [row(1)]),
        write_jsonl("b.jsonl", [row(1, content="other"), row(2)]),
    )
    data = load(first, second, heldout_prompts=0, max_quarantined_fraction=1.0)
    assert quarantine_of(data) == [("b.jsonl", 1, "duplicate_id")]
    assert str(first) in data.report.quarantine.examples[Reason.DUPLICATE_ID][0].detail


# --- Held out


def test_the_draw_of_held_out_rows_depends_on_the_seed_but_not_on_the_order_of_rows(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    rows = [row(i) for i in range(60)]
    data = load(write_jsonl("a.jsonl", rows), heldout_prompts=10)
    random.Random(1).shuffle(rows)
    shuffled = load(write_jsonl("b.jsonl", rows), heldout_prompts=10)
    other_seed = load(write_jsonl("c.jsonl", rows), heldout_prompts=10, seed=1)
    assert len(data.heldout) == 10
    assert data.heldout == shuffled.heldout
    assert set(ids(data.heldout)) != set(ids(other_seed.heldout))
    assert sorted(ids(data.train + data.heldout)) == sorted(f"r{i}" for i in range(60))
    assert data.report.heldout_drawn


def test_other_rows_with_a_drawn_prompt_are_quarantined_and_do_not_count_as_unusable(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    rows = [row(i, content=f"question {i // 3}") for i in range(30)]  # three answers to every prompt
    data = load(write_jsonl("a.jsonl", rows), heldout_prompts=4, max_quarantined_fraction=0.0)
    heldout_prompts = {example.messages for example in data.heldout}
    assert len(heldout_prompts) == len(data.heldout) == 4
    assert len(data.train) == 30 - 12
    assert not heldout_prompts & {example.messages for example in data.train}
    assert data.report.quarantine.counts == {Reason.HELDOUT_PROMPT: 8}


def test_the_first_usable_rows_of_the_held_out_files_are_used_and_all_their_prompts_kept_from_training(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    heldout = write_jsonl(
        "h.jsonl", [row(0, content=None), *(row(100 + i, content=f"q {i}") for i in range(4))]
    )
    train = write_jsonl("t.jsonl", [row(1), row(2, content=" q  0\n"), row(3, content="q 3"), row(4)])
    data = load(train, heldout=[heldout], heldout_prompts=2, max_quarantined_fraction=0.2)
    assert ids(data.heldout) == ["r100", "r101"]
    assert ids(data.train) == ["r1", "r4"]
    assert data.report.num_heldout_unused == 2
    assert quarantine_of(data) == [
        ("h.jsonl", 1, "no_prompt"),
        ("t.jsonl", 2, "heldout_prompt"),
        ("t.jsonl", 3, "heldout_prompt"),
    ]


def test_a_file_both_held_out_and_trained_on_is_refused(write_jsonl: WriteJsonl, load: Load) -> None:
    path = write_jsonl("a.jsonl", [row(1)])
    with pytest.raises(DataError, match=r"data\.heldout and data\.train both name .*a\.jsonl"):
        load(path, heldout=[path])


# --- Long prompts


def test_long_prompts_refuse_the_run_and_the_first_of_them_are_named(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    rows = [row(i, content="w " * (12 if i >= 3 else 1) + f"{i}") for i in range(10)]
    with pytest.raises(DataError) as caught:
        load(write_jsonl("a.jsonl", rows), max_prompt_tokens=10, heldout_prompts=1)
    text = str(caught.value)
    assert "7 prompts are too long" in text
    assert "a.jsonl:4: 13 tokens; max_prompt_tokens is 10" in text
    assert "and 2 more" in text
    assert "data.long_prompts=skip" in text


def test_long_prompts_are_quarantined_where_the_config_says_skip(write_jsonl: WriteJsonl, load: Load) -> None:
    path = write_jsonl("a.jsonl", [row(1, content="w " * 12), row(2), row(3)])
    options = {"max_prompt_tokens": 10, "heldout_prompts": 1, "max_quarantined_fraction": 0.5}
    data = load(path, long_prompts="skip", **options)
    assert quarantine_of(data) == [("a.jsonl", 1, "long_prompt")]
    assert len(data.train) == 1


# --- Nothing


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_refused_by_name(tmp_path: Path, load: Load, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"a\.jsonl: holds no rows"):
        load(tmp_path / "a.jsonl")


def test_a_parquet_file_without_rows_is_refused_by_name(tmp_path: Path, load: Load) -> None:
    schema = pa.schema([("content", pa.string()), ("teacher_response", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: holds no rows"):
        load(tmp_path / "a.parquet")


def test_data_of_which_everything_is_held_out_are_refused(write_jsonl: WriteJsonl, load: Load) -> None:
    with pytest.raises(DataError, match=r"no row is left to train on, of 3 read, 3 held out") as caught:
        load(write_jsonl("a.jsonl", [row(1), row(2), row(3)]), heldout_prompts=64)
    assert "data.heldout_prompts" in str(caught.value)


def test_data_of_which_nothing_is_usable_are_refused_even_without_a_threshold(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    path = write_jsonl("a.jsonl", [row(1, teacher_response=" "), row(2, content=5)])
    with pytest.raises(
        DataError, match="no row is left to train on, of 2 read: 1 × empty_response, 1 × not_text"
    ):
        load(path, max_quarantined_fraction=1.0)


def test_held_out_files_of_which_nothing_is_usable_are_refused(write_jsonl: WriteJsonl, load: Load) -> None:
    heldout = write_jsonl("h.jsonl", [row(9, teacher_response=" ")])
    with pytest.raises(DataError, match="no held-out row can be used: 1 × empty_response"):
        load(write_jsonl("t.jsonl", [row(1)]), heldout=[heldout], max_quarantined_fraction=1.0)


# --- In words


def test_the_description_says_what_was_loaded_held_out_and_left_out(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    chat = [{"role": role, "content": "hi"} for role in ("system", "user", "assistant", "user")]
    rows = [
        row(1),
        row(2, content="question 1"),
        row(3, content=chat),
        row(4, content="a b c d e"),
        row(5, content=" "),
    ]
    heldout = write_jsonl("h.jsonl", [row(10, content="x"), row(11, content="y")])
    path = write_jsonl("a.jsonl", rows)
    data = load(path, heldout=[heldout], heldout_prompts=1, max_quarantined_fraction=0.5)
    assert describe(data) == [
        f"4 rows to train on, of 7 read from {heldout}, {path}",
        "held-out prompts: 1, from files of their own; rows of these files beyond that, not used: 1",
        (
            "prompts: 2 tokens in the median, 5 at 95 %, 5 at most; "
            "teacher responses: 2 tokens in the median, 2 at 95 %, 2 at most"
        ),
        "of the rows to train on: 1 with the prompt of an earlier one, 1 with earlier turns, 1 with a system message",
        f"quarantined rows: 1 (1 × empty_prompt), see {data.report.quarantine.path}",
    ]


def test_the_description_of_plain_data_says_that_nothing_is_amiss(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    path = write_jsonl("a.jsonl", [row(1), row(2), row(3)])
    drawn = describe(load(path, heldout_prompts=1))
    assert drawn[1] == "held-out prompts: 1, drawn by seed, never trained on"
    assert drawn[-1] == "quarantined rows: none"
    assert len(drawn) == 4
    assert "nothing is held out" in describe(load(path, heldout_prompts=0))[1]


def test_lengths_are_those_of_the_middle_the_ninety_fifth_and_the_longest() -> None:
    assert Lengths.of(range(1, 102)) == Lengths(median=51, p95=96, longest=101)
    assert Lengths.of([]) == Lengths(median=0, p95=0, longest=0)


def test_reading_data_imports_neither_torch_nor_ray_nor_transformers() -> None:
    program = (
        "import sys, gad_ray.data.dataset, gad_ray.data.cursor, gad_ray.data.stats\n"
        "print(sorted({'torch', 'ray', 'transformers', 'pyarrow', 'datasets'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
