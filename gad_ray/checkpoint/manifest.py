"""The manifest of a directory: size and SHA-256 of every file, written when it is committed.

Weights formats notice a truncated file, but load a flipped bit without a word; a manifest does not.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

from gad_ray.errors import CheckpointError

MANIFEST = "manifest.json"
_FORMAT_VERSION = 1


def write_manifest(directory: Path) -> None:
    """Write ``manifest.json`` for all files under a directory, replacing one that is there.

    Args:
        directory: The directory; files in its subfolders are listed by their relative path.

    Raises:
        CheckpointError: If something in it is neither a file nor a folder, e.g. a link that leads elsewhere.
    """
    files = {
        name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for name, path in _files(directory).items()
    }
    text = json.dumps({"format_version": _FORMAT_VERSION, "files": files}, indent=1, sort_keys=True)
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def verify_manifest(directory: Path) -> None:
    """Hold every file of a directory against its manifest.

    Args:
        directory: A directory that ``write_manifest`` has described.

    Raises:
        CheckpointError: If there is no readable manifest, or a file is missing, added, or not what it was.
    """
    listed = _read_manifest(directory)
    present = _files(directory)
    for name, entry in listed.items():
        path = present.pop(name, None)
        if path is None:
            raise _damage(directory / name, "is missing", directory)
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise _damage(path, f"has {size} bytes, and had {entry['bytes']} when it was written", directory)
        if _sha256(path) != entry["sha256"]:
            raise _damage(path, "is not what was written: its SHA-256 differs", directory)
    for name in present:
        raise _damage(directory / name, "does not belong here: the manifest does not list it", directory)


def _read_manifest(directory: Path) -> dict[str, dict[str, Any]]:
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, files = content["format_version"], cast("dict[str, dict[str, Any]]", content["files"])
        complete = all({"bytes", "sha256"} <= entry.keys() for entry in files.values())
    except FileNotFoundError as error:
        raise _damage(path, "is missing: nothing was committed here", directory) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damage(path, f"cannot be read ({error})", directory) from error
    if version != _FORMAT_VERSION:
        raise _damage(
            path, f"has the format version {version}, and this release reads {_FORMAT_VERSION}", directory
        )
    if not complete:
        raise _damage(path, "lists a file without its size or SHA-256", directory)
    return files


def _files(directory: Path) -> dict[str, Path]:
    """Relative name → path of every file under a directory but the manifest, in a fixed order."""
    found: dict[str, Path] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CheckpointError(
                "is neither a file nor a folder",
                where=str(path),
                hint="write copies into a checkpoint, not links",
            )
        if path.is_file() and path != directory / MANIFEST:
            found[path.relative_to(directory).as_posix()] = path
    return found


def _damage(path: Path, what: str, directory: Path) -> CheckpointError:
    return CheckpointError(
        what,
        where=str(path),
        hint=f"restore it from a copy, or remove {directory} and go on from an older one",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
