"""Holding out part of a table of pairs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.split_pairs import split_file, split_heldout
from gad_ray.errors import DataError


def table_of(kinds: list[str], *, contents: list[str] | None = None) -> pa.Table:
    rows = [
        {
            "id": f"id{i}",
            "content": contents[i] if contents else f"prompt {i}",
            "teacher_response": f"answer {i}",
            "meta": {"kind": kind},
        }
        for i, kind in enumerate(kinds)
    ]
    return pa.Table.from_pylist(rows)


def ids(table: pa.Table) -> list[str]:
    return table.column("id").to_pylist()


@settings(deadline=None)  # the first example pays for importing pyarrow
@given(
    kinds=st.lists(st.sampled_from("abcd"), min_size=2, max_size=40),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_every_row_is_in_one_part_and_each_stratum_within_one_row_of_its_share(
    kinds: list[str], share: float, seed: int
) -> None:
    num_heldout = 1 + int(share * (len(kinds) - 2))
    split = split_heldout(table_of(kinds), num_heldout=num_heldout, seed=seed, by="kind")
    assert split.heldout.num_rows == num_heldout
    assert sorted(ids(split.train) + ids(split.heldout)) == sorted(f"id{i}" for i in range(len(kinds)))
    drawn = Counter(meta["kind"] for meta in split.heldout.column("meta").to_pylist())
    for kind, size in Counter(kinds).items():
        assert abs(drawn[kind] - size * num_heldout / len(kinds)) < 1


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    table = table_of(["a", "b"] * 50)
    backwards = table.take(list(reversed(range(100))))
    first = split_heldout(table, num_heldout=20, seed=0, by="kind")
    assert set(ids(first.heldout)) == set(
        ids(split_heldout(backwards, num_heldout=20, seed=0, by="kind").heldout)
    )
    assert set(ids(first.heldout)) != set(
        ids(split_heldout(table, num_heldout=20, seed=1, by="kind").heldout)
    )


def test_both_parts_keep_the_order_of_the_input() -> None:
    split = split_heldout(table_of(["a"] * 30), num_heldout=10, seed=0)
    for part in (split.train, split.heldout):
        numbers = [int(row_id.removeprefix("id")) for row_id in ids(part)]
        assert numbers == sorted(numbers)


def test_no_prompt_of_a_heldout_row_is_left_in_training() -> None:
    contents = ["same  prompt", "same\nprompt", *(f"other {i}" for i in range(8))]
    table = table_of(["a", "a", *"b" * 8], contents=contents)
    split = split_heldout(table, num_heldout=8, seed=0, by="kind")
    assert split.num_dropped == 1
    assert len({"id0", "id1"} & set(ids(split.heldout))) == 1
    assert not {"id0", "id1"} & set(ids(split.train))


@pytest.mark.parametrize("num_heldout", [0, 3, 4])
def test_holding_out_nothing_or_everything_is_refused(num_heldout: int) -> None:
    with pytest.raises(DataError, match=f"cannot hold out {num_heldout} of 3 distinct prompts"):
        split_heldout(table_of(["a", "a", "b"]), num_heldout=num_heldout, seed=0)


def test_an_unknown_stratum_a_missing_column_and_a_repeated_id_are_named() -> None:
    table = table_of(["a", "b"])
    with pytest.raises(DataError, match="named 'category'"):
        split_heldout(table, num_heldout=1, seed=0, by="category")
    with pytest.raises(DataError, match="no column 'content'"):
        split_heldout(table.drop_columns(["content"]), num_heldout=1, seed=0)
    with pytest.raises(DataError, match="holds an id twice"):
        split_heldout(pa.concat_tables([table, table]), num_heldout=1, seed=0)


def test_files_are_split_into_files_as_if_they_were_one(tmp_path: Path) -> None:
    whole = table_of(["a", "b"] * 5)
    pq.write_table(whole.slice(0, 7), tmp_path / "first.parquet")
    pq.write_table(whole.slice(7), tmp_path / "second.parquet")
    train, heldout = tmp_path / "train.parquet", tmp_path / "heldout.parquet"
    split_file(
        [tmp_path / "first.parquet", tmp_path / "second.parquet"],
        train=train,
        heldout=heldout,
        num_heldout=4,
        seed=0,
        by="kind",
    )
    expected = split_heldout(whole, num_heldout=4, seed=0, by="kind")
    assert pq.read_table(train).equals(expected.train)
    assert pq.read_table(heldout).equals(expected.heldout)
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_that_is_not_there_or_not_alike_is_named(tmp_path: Path) -> None:
    first, second, none = (tmp_path / name for name in ("first.parquet", "second.parquet", "none.parquet"))
    pq.write_table(table_of(["a", "b"]), first)
    pq.write_table(table_of(["a", "b"]).drop_columns(["meta"]), second)
    parts = {"train": tmp_path / "t.parquet", "heldout": tmp_path / "h.parquet"}
    with pytest.raises(DataError, match="cannot read pairs") as caught:
        split_file([first, none], **parts, num_heldout=1, seed=0)
    assert caught.value.where == str(none)
    with pytest.raises(DataError, match="its columns are not those of") as caught:
        split_file([first, second], **parts, num_heldout=1, seed=0)
    assert caught.value.where == str(second)
    with pytest.raises(DataError, match="no file of pairs"):
        split_file([], **parts, num_heldout=1, seed=0)
