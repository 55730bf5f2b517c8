from __future__ import annotations

from pathlib import Path

import pytest

from gad_ray.data.sources import FileInput, HubInput, packaged_names, resolve_sources
from gad_ray.errors import DataError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def paths_of(*sources: str, packaged: Path) -> list[Path]:
    return [
        found.path for found in resolve_sources(sources, packaged=packaged) if isinstance(found, FileInput)
    ]


def test_the_files_of_a_glob_are_sorted_and_those_of_directories_within_are_found(tmp_path: Path) -> None:
    touch(tmp_path / "b.jsonl", tmp_path / "a.jsonl", tmp_path / "x" / "y" / "c.jsonl")
    assert paths_of(f"{tmp_path}/*.jsonl", packaged=tmp_path) == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert paths_of(f"{tmp_path}/x/**/*.jsonl", packaged=tmp_path) == [tmp_path / "x" / "y" / "c.jsonl"]


def test_a_file_with_brackets_in_its_name_is_not_taken_for_a_glob(tmp_path: Path) -> None:
    touch(tmp_path / "part[1].jsonl")
    assert paths_of(f"{tmp_path}/part[1].jsonl", packaged=tmp_path) == [tmp_path / "part[1].jsonl"]


def test_sources_keep_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert paths_of(f"{tmp_path}/b.jsonl", f"{tmp_path}/a.jsonl", packaged=tmp_path) == [
        tmp_path / "b.jsonl",
        tmp_path / "a.jsonl",
    ]


def test_an_empty_glob_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file matches"):
        resolve_sources([f"{tmp_path}/*.parquet"])


def test_a_missing_file_is_refused_with_the_name_that_was_probably_meant(tmp_path: Path) -> None:
    touch(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match="there is no file") as caught:
        resolve_sources([f"{tmp_path}/trian.jsonl"])
    assert "did you mean" in str(caught.value)
    assert str(tmp_path / "train.jsonl") in str(caught.value)


def test_a_directory_is_refused_with_a_glob_to_use_instead(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/\*\.parquet"):
        resolve_sources([str(tmp_path)])


@pytest.mark.parametrize("name", ["rows.csv", "rows", "rows.json"])
def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    with pytest.raises(DataError, match=r"data are read from \.parquet and \.jsonl"):
        resolve_sources([f"{tmp_path}/{name}"])


def test_a_file_named_twice_is_refused_with_both_sources(tmp_path: Path) -> None:
    touch(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="named twice") as caught:
        resolve_sources([f"{tmp_path}/a.jsonl", f"{tmp_path}/*.jsonl"])
    assert "*.jsonl" in str(caught.value)


def test_a_packaged_data_set_stands_for_its_files_and_one_of_them_can_be_named(tmp_path: Path) -> None:
    touch(
        tmp_path / "demo" / "train.parquet", tmp_path / "demo" / "more.jsonl", tmp_path / "demo" / "card.md"
    )
    assert paths_of("package:demo", packaged=tmp_path) == [
        tmp_path / "demo" / "more.jsonl",
        tmp_path / "demo" / "train.parquet",
    ]
    assert paths_of("package:demo/train", packaged=tmp_path) == [tmp_path / "demo" / "train.parquet"]


def test_an_unknown_packaged_name_is_refused_with_the_nearest_and_with_all_there_are(tmp_path: Path) -> None:
    touch(tmp_path / "demo" / "train.parquet")
    with pytest.raises(DataError, match=r"did you mean package:demo/train\?") as caught:
        resolve_sources(["package:demo/trian"], packaged=tmp_path)
    assert "There are: package:demo, package:demo/train" in str(caught.value)


def test_a_packaged_name_cannot_leave_the_packaged_directory(tmp_path: Path) -> None:
    touch(tmp_path / "secret" / "a.jsonl", tmp_path / "packaged" / "demo" / "a.jsonl")
    with pytest.raises(DataError, match="no packaged data set"):
        resolve_sources(["package:../secret"], packaged=tmp_path / "packaged")


def test_without_any_packaged_data_the_error_says_so(tmp_path: Path) -> None:
    assert packaged_names(tmp_path) == {}
    with pytest.raises(DataError, match="nor any other"):
        resolve_sources(["package:demo"], packaged=tmp_path)


def test_a_hub_name_has_an_owner_and_may_have_a_split() -> None:
    assert resolve_sources(["hub:acme/pairs", "hub:acme/pairs:test"]) == (
        HubInput(repo="acme/pairs", split="train"),
        HubInput(repo="acme/pairs", split="test"),
    )
    for wrong in ("hub:pairs", "hub:", "hub:a/b/c"):
        with pytest.raises(DataError, match="OWNER/NAME"):
            resolve_sources([wrong])
