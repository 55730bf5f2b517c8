from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gad_ray.data import read
from gad_ray.data.read import read_rows
from gad_ray.data.rows import EXCERPT_CHARACTERS, RawRow, Reason, Rejection
from gad_ray.data.sources import FileInput, HubInput
from gad_ray.errors import DataError

GOOD = b'{"content": "hi", "teacher_response": "hello"}'


def rows_of(path: Path) -> list[RawRow | Rejection]:
    return list(read_rows(FileInput(path=path)))


def lines(tmp_path: Path, *content: bytes, end: bytes = b"\n") -> list[RawRow | Rejection]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(end.join(content))
    return rows_of(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"content": "cut o', Reason.INVALID_JSON),
        (b"not json", Reason.INVALID_JSON),
        (b'{"content": NaN}', Reason.INVALID_JSON),
        (b'{"content": "a", "content": "b"}', Reason.INVALID_JSON),
        (b'{"meta": ' + b"[" * 200_000, Reason.INVALID_JSON),
        (b'{"id": ' + b"9" * 10_000 + b"}", Reason.INVALID_JSON),
        (b'["a", "b"]', Reason.NOT_AN_OBJECT),
        (b'"text"', Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'{"content": "caf\xe9"}', Reason.INVALID_UTF8),
        (b'{"content": "\xed\xa0\x80"}', Reason.INVALID_UTF8),
        (b'{"content": "\\ud83d"}', Reason.LONE_SURROGATE),
        (b'{"content": [{"role": "user", "content": "a\\udc00b"}]}', Reason.LONE_SURROGATE),
        (b'{"\\ud800": 1}', Reason.LONE_SURROGATE),
        (b"\xef\xbb\xbf" + GOOD, Reason.BYTE_ORDER_MARK),
        (b"\xff\xfe{\x00}\x00", Reason.BYTE_ORDER_MARK),
    ],
)
def test_a_bad_line_is_rejected_with_its_number_and_its_neighbours_are_read(
    tmp_path: Path, line: bytes, reason: Reason
) -> None:
    first, bad, last = lines(tmp_path, GOOD, line, GOOD)
    assert isinstance(first, RawRow)
    assert isinstance(bad, Rejection)
    assert isinstance(last, RawRow)
    assert (bad.place.number, bad.reason) == (2, reason)
    assert bad.place.file.endswith("rows.jsonl")
    assert len(bad.excerpt) <= EXCERPT_CHARACTERS
    assert last.place.number == 3


def test_blank_lines_are_ignored_but_counted(tmp_path: Path) -> None:
    rows = lines(tmp_path, b"", GOOD, b"  \t ", GOOD, b"", end=b"\r\n")
    assert [row.place.number for row in rows] == [2, 4]


def test_a_surrogate_pair_and_an_unescaped_emoji_are_the_same_good_text(tmp_path: Path) -> None:
    escaped, plain = lines(tmp_path, b'{"content": "\\ud83d\\ude00"}', '{"content": "😀"}'.encode())
    assert isinstance(escaped, RawRow)
    assert isinstance(plain, RawRow)
    assert escaped.fields == plain.fields == {"content": "😀"}


def test_line_separators_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    (row,) = lines(tmp_path, '{"content": "a\u2028b\u0085c"}'.encode())
    assert isinstance(row, RawRow)
    assert row.fields["content"] == "a\u2028b\u0085c"


def test_an_endless_line_is_rejected_without_being_held_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_MAX_LINE_BYTES", 100)
    rows = lines(tmp_path, GOOD, b'"' + b"x" * 1000 + b'"', GOOD, b"y" * 101, GOOD)
    assert [row.place.number for row in rows] == [1, 2, 3, 4, 5]
    assert [isinstance(row, Rejection) and row.reason for row in rows] == [
        False,
        Reason.LINE_TOO_LONG,
        False,
        Reason.LINE_TOO_LONG,
        False,
    ]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([GOOD, b"{", b"\n", b"\r", b"\\ud800", b'"', b"\xff", b"[", b"1e999"])).map(
            b"".join
        ),
    )
)
def test_no_bytes_whatever_make_the_reader_raise(tmp_path: Path, content: bytes) -> None:
    rows = lines(tmp_path, content)
    num_lines = sum(bool(line.strip()) for line in content.split(b"\n"))
    assert len(rows) == num_lines


def test_a_missing_jsonl_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        rows_of(tmp_path / "gone.jsonl")


def test_a_file_of_an_unknown_kind_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.csv.*'\.csv'"):
        rows_of(tmp_path / "rows.csv")


# --- Parquet


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_rows_are_streamed_over_row_groups_with_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_PARQUET_BATCH_ROWS", 3)
    columns = {"prompt": [f"p{i}" for i in range(10)], "teacher_response": [f"r{i}" for i in range(10)]}
    rows = rows_of(write_parquet(tmp_path / "a.parquet", columns, row_group_size=4))
    assert [row.place.number for row in rows] == list(range(1, 11))
    assert [row.fields["prompt"] for row in rows if isinstance(row, RawRow)] == columns["prompt"]


def test_parquet_keeps_messages_and_meta_and_never_loads_other_columns(tmp_path: Path) -> None:
    columns = {
        "messages": [[{"role": "user", "content": "hi"}]],
        "teacher_response": ["yo"],
        "meta": pa.array([[("k", "v")]], type=pa.map_(pa.string(), pa.string())),
        "embedding": [[0.0] * 8],
    }
    (row,) = rows_of(write_parquet(tmp_path / "a.parquet", columns))
    assert isinstance(row, RawRow)
    assert row.fields == {
        "messages": [{"role": "user", "content": "hi"}],
        "teacher_response": "yo",
        "meta": {"k": "v"},
    }


def test_a_parquet_text_that_is_not_utf8_is_rejected_and_its_neighbours_are_read(tmp_path: Path) -> None:
    text = pa.array([b"good", b"caf\xe9", b"fine"], type=pa.binary()).view(pa.string())
    columns = {"content": text, "teacher_response": ["a", "b", "c"]}
    first, bad, last = rows_of(write_parquet(tmp_path / "a.parquet", columns))
    assert isinstance(first, RawRow)
    assert isinstance(last, RawRow)
    assert isinstance(bad, Rejection)
    assert (bad.place.number, bad.reason) == (2, Reason.INVALID_UTF8)


def test_a_map_with_a_key_given_twice_is_rejected(tmp_path: Path) -> None:
    meta = pa.array([[("k", "1"), ("k", "2")], [("k", "1")]], type=pa.map_(pa.string(), pa.string()))
    columns = {"content": ["a", "b"], "teacher_response": ["a", "b"], "meta": meta}
    bad, good = rows_of(write_parquet(tmp_path / "a.parquet", columns))
    assert isinstance(bad, Rejection)
    assert (bad.place.number, bad.reason) == (1, Reason.UNREADABLE_VALUE)
    assert isinstance(good, RawRow)


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        ({"content": ["a"], "response": ["b"]}, "'teacher_response'"),
        ({"query": ["a"], "teacher_response": ["b"]}, "'content' or 'prompt' or 'messages'"),
    ],
)
def test_a_parquet_file_without_a_needed_column_is_an_error_that_names_those_it_has(
    tmp_path: Path, columns: dict[str, Any], missing: str
) -> None:
    with pytest.raises(DataError, match=f"no column {missing}") as caught:
        rows_of(write_parquet(tmp_path / "a.parquet", columns))
    assert all(repr(name) in str(caught.value) for name in columns)


def test_a_nearly_right_column_is_suggested(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"content": ["a"], "teacher_respons": ["b"]})
    with pytest.raises(DataError, match="rename 'teacher_respons'"):
        rows_of(path)


def test_an_empty_a_truncated_and_a_missing_parquet_file_are_errors_that_name_them(tmp_path: Path) -> None:
    whole = write_parquet(
        tmp_path / "a.parquet", {"content": ["a" * 999], "teacher_response": ["b"]}
    ).read_bytes()
    for name, content in {"empty": b"", "cut": whole[: len(whole) // 2], "text": GOOD}.items():
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.parquet.*cannot be read as Parquet"):
            rows_of(path)
    with pytest.raises(DataError, match=r"gone\.parquet"):
        rows_of(tmp_path / "gone.parquet")


def test_a_damaged_row_group_is_an_error_that_names_the_last_good_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_PARQUET_BATCH_ROWS", 1)
    columns = {"content": ["first", "second" * 200], "teacher_response": ["b", "c"]}
    path = write_parquet(
        tmp_path / "a.parquet", columns, row_group_size=1, compression="snappy", use_dictionary=False
    )
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(DataError, match="after row 1"):
        rows_of(path)


# --- The hub


HUB = HubInput(repo="acme/pairs", split="train")


def test_without_the_datasets_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        list(read_rows(HUB))


def test_hub_rows_are_streamed_with_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(repo: str, **options: Any) -> list[dict[str, str]]:
        asked.append((repo, options))
        return [{"content": "a"}, {"content": "b"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    rows = list(read_rows(HUB))
    assert asked == [("acme/pairs", {"split": "train", "streaming": True})]
    assert [str(row.place) for row in rows] == ["hub:acme/pairs:train:1", "hub:acme/pairs:train:2"]


def test_a_hub_that_cannot_be_reached_is_an_error_that_names_the_data_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_dataset(repo: str, **_: Any) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"hub:acme/pairs:train.*no route to host"):
        list(read_rows(HUB))
