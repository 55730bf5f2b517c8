import json
from pathlib import Path

import pytest

from gad_ray.checkpoint.manifest import verify_manifest, write_manifest
from gad_ray.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "weights.safetensors").write_bytes(bytes(range(256)) * 50)
    (tmp_path / "position.json").write_text("{}")
    (tmp_path / "empty").write_bytes(b"")
    write_manifest(tmp_path)
    return tmp_path


def test_an_untouched_folder_verifies(folder: Path):
    verify_manifest(folder)


def test_the_manifest_gives_size_and_digest_of_every_file(folder: Path):
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert set(files) == {"policy/weights.safetensors", "position.json", "empty"}
    assert files["empty"] == {
        "bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }


@pytest.mark.parametrize("position", [0, 6000, 12799])
def test_a_flipped_bit_is_found_and_its_file_named(folder: Path, position: int):
    path = folder / "policy" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 0b100
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256 differs") as found:
        verify_manifest(folder)
    assert found.value.where == str(path)
    assert "older one" in str(found.value.hint)


def test_a_truncated_file_is_named_with_both_sizes(folder: Path):
    path = folder / "policy" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="has 12799 bytes, and had 12800") as found:
        verify_manifest(folder)
    assert found.value.where == str(path)


def test_a_missing_and_an_added_file_are_named(folder: Path):
    (folder / "policy" / "extra.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"extra\.safetensors: does not belong here"):
        verify_manifest(folder)
    (folder / "position.json").unlink()
    with pytest.raises(CheckpointError, match=r"position\.json: is missing"):
        verify_manifest(folder)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format_version": 1, "files": {"empty": {}}}', '{"format_version": 1, "files": 3}'],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, content: str):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        verify_manifest(folder)


def test_a_later_formats_manifest_is_refused_by_its_version(folder: Path):
    (folder / "manifest.json").write_text('{"format_version": 2, "files": {}}')
    with pytest.raises(CheckpointError, match="format version 2, and this release reads 1"):
        verify_manifest(folder)


def test_a_folder_without_manifest_was_never_committed(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nothing was committed here"):
        verify_manifest(tmp_path)


def test_links_are_refused(tmp_path: Path):
    (tmp_path / "weights").symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match="neither a file nor a folder"):
        write_manifest(tmp_path)
