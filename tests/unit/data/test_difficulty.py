from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gad_ray.config.curriculum import DifficultyCurriculum
from gad_ray.data.dataset import LoadedData
from gad_ray.data.stats import describe
from gad_ray.errors import DataError

WriteJsonl = Callable[[str, Iterable[Mapping[str, Any]]], Path]
Load = Callable[..., LoadedData]


def row(number: int, **fields: Any) -> dict[str, Any]:
    text = {"content": f"question {number}", "teacher_response": f"answer {number}"}
    return {"id": f"r{number}", **text, **fields}


def ids(data: LoadedData) -> list[str]:
    return [example.id for example in data.train]


def test_the_number_comes_from_a_field_or_from_meta_in_every_kind_of_file(
    tmp_path: Path, write_jsonl: WriteJsonl, load: Load
) -> None:
    write_jsonl("a.jsonl", [row(1, difficulty=3), row(2, meta={"difficulty": 0.5})])
    pq.write_table(pa.Table.from_pylist([row(3, difficulty=-2.0)]), tmp_path / "b.parquet")
    pq.write_table(pa.Table.from_pylist([row(4, meta={"difficulty": "7"})]), tmp_path / "c.parquet")
    data = load(
        tmp_path / "a.jsonl",
        tmp_path / "b.parquet",
        tmp_path / "c.parquet",
        heldout_prompts=0,
        curriculum=DifficultyCurriculum(),
    )
    assert dict(zip(ids(data), data.difficulty, strict=True)) == {"r1": 3.0, "r2": 0.5, "r3": -2.0, "r4": 7.0}


def test_without_such_a_curriculum_nothing_is_read_of_it(write_jsonl: WriteJsonl, load: Load) -> None:
    path = write_jsonl("a.jsonl", [row(1, difficulty="hard"), row(2)])
    data = load(path, heldout_prompts=0)
    assert len(data.train) == 2
    assert data.difficulty == ()


def test_rows_outside_the_bounds_are_not_trained_on_and_counted(write_jsonl: WriteJsonl, load: Load) -> None:
    path = write_jsonl("a.jsonl", [row(i, hardness=i) for i in range(10)])
    curriculum = DifficultyCurriculum(column="hardness", min=2.0, max=5.5)
    data = load(path, heldout_prompts=0, curriculum=curriculum)
    assert ids(data) == ["r2", "r3", "r4", "r5"]
    assert data.report.num_filtered == 6
    assert "outside the bounds of data.curriculum, not trained on: 6 rows" in describe(data)
    assert data.report.quarantine.num_quarantined == 0


def test_held_out_prompts_are_of_all_difficulties(write_jsonl: WriteJsonl, load: Load) -> None:
    train = write_jsonl("a.jsonl", [row(i, difficulty=i) for i in range(4)])
    heldout = write_jsonl("b.jsonl", [row(10), row(11, difficulty=99)])
    data = load(train, heldout=[heldout], heldout_prompts=2, curriculum=DifficultyCurriculum(max=2.0))
    assert [example.id for example in data.heldout] == ["r10", "r11"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "there is neither a field 'difficulty' nor such a key of meta"),
        ({"difficulty": None}, "there is neither a field"),
        ({"meta": {"level": 3}}, "there is neither a field"),
        ({"difficulty": "hard"}, "difficulty is a str, 'hard', not a number"),
        ({"difficulty": True}, "difficulty is a bool"),
        ({"difficulty": [3]}, "difficulty is a list"),
        ({"difficulty": "nan"}, "difficulty is nan, not a finite number"),
        ({"difficulty": 10**400}, "difficulty is a int"),
    ],
)
def test_a_row_without_a_difficulty_is_refused_by_name_or_quarantined(
    write_jsonl: WriteJsonl, load: Load, fields: dict[str, Any], told: str
) -> None:
    path = write_jsonl("a.jsonl", [row(1, difficulty=1), row(2, **fields)])
    with pytest.raises(DataError) as caught:
        load(path, heldout_prompts=0, curriculum=DifficultyCurriculum())
    assert "data.curriculum.column = 'difficulty', and 1 rows have no such number" in str(caught.value)
    assert f"a.jsonl:2: {told}" in str(caught.value)
    assert "data.curriculum.missing=quarantine" in str(caught.value)
    lenient = DifficultyCurriculum(missing="quarantine")
    data = load(path, heldout_prompts=0, max_quarantined_fraction=0.5, curriculum=lenient)
    assert ids(data) == ["r1"]
    (entry,) = map(json.loads, data.report.quarantine.path.read_text("utf-8").splitlines())
    assert (entry["line"], entry["reason"]) == (2, "no_difficulty")


def test_rows_without_a_difficulty_count_as_unusable(write_jsonl: WriteJsonl, load: Load) -> None:
    path = write_jsonl("a.jsonl", [row(1, difficulty=1), row(2)])
    with pytest.raises(DataError, match=r"1 of 2 rows .* no_difficulty"):
        load(path, heldout_prompts=0, curriculum=DifficultyCurriculum(missing="quarantine"))


def test_bounds_that_leave_nothing_are_refused_with_what_there_is(
    write_jsonl: WriteJsonl, load: Load
) -> None:
    path = write_jsonl("a.jsonl", [row(i, difficulty=i) for i in range(3, 8)])
    with pytest.raises(DataError) as caught:
        load(path, heldout_prompts=0, curriculum=DifficultyCurriculum(min=8.5, max=9.0))
    assert (
        "data.curriculum.min = 8.5 and data.curriculum.max = 9 leave none of 5 rows: 'difficulty' runs from 3 to 7"
        in str(caught.value)
    )
    assert caught.value.hint == "widen the bounds"
