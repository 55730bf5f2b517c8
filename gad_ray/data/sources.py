"""Names of data sources, resolved to the files and hub data sets that they stand for."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gad_ray.errors import DataError

SUFFIXES = (".parquet", ".jsonl")
"""Kinds of files that can be read."""

PACKAGED = Path(__file__).parent / "packaged"
"""Data sets that come with GAD-Ray, one directory each."""

_DEFAULT_SPLIT = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInput:
    """One Parquet or JSONL file that exists."""

    path: Path

    @property
    def name(self) -> str:
        """How messages and the quarantine call it."""
        return str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubInput:
    """One split of a data set on the Hugging Face hub. Whether it exists shows when it is read."""

    repo: str
    split: str

    @property
    def name(self) -> str:
        """How messages and the quarantine call it."""
        return f"hub:{self.repo}:{self.split}"


Input = FileInput | HubInput


def resolve_sources(sources: Iterable[str], *, packaged: Path = PACKAGED) -> tuple[Input, ...]:
    """Resolve source names to inputs, in the order given; the files of a glob or a package are sorted.

    Args:
        sources: Paths, globs (``**`` crosses directories), ``package:NAME``, ``package:NAME/FILE`` (no suffix),
            ``hub:OWNER/NAME`` or ``hub:OWNER/NAME:SPLIT``. Relative paths start at the working directory.
        packaged: Directory of the packaged data sets.

    Raises:
        DataError: If a source stands for nothing, or if two of them stand for the same file.
    """
    first_source: dict[Input, str] = {}
    for source in sources:
        for found in _resolve_one(source, packaged):
            if found in first_source:
                raise DataError(
                    f"{found.name} is named twice: by {first_source[found]!r} and by {source!r}",
                    hint="name every file once, so that no row counts twice",
                )
            first_source[found] = source
    return tuple(first_source)


def _resolve_one(source: str, packaged: Path) -> list[Input]:
    kind, _, rest = source.partition(":")
    if kind == "package":
        return [FileInput(path=path) for path in _packaged_files(rest, packaged)]
    if kind == "hub":
        return [_hub_input(rest)]
    return [FileInput(path=path) for path in _files(source)]


def _files(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_file():  # before looking for a glob: a file may have brackets in its name
        _check_suffix(path)
        return [path.resolve()]
    if path.is_dir():
        raise DataError(
            f"{source!r} is a directory, not a file",
            hint=f"name its files, e.g. {source.rstrip('/')}/*.parquet",
        )
    if not glob.has_magic(source):
        raise DataError(f"there is no file {source!r}", hint=_near_files(path))
    found = sorted(p.resolve() for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
    if not found:
        raise DataError(
            f"no file matches {source!r}", hint="correct the pattern, or quote it if a shell has expanded it"
        )
    for match in found:
        _check_suffix(match)
    return found


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"{str(path)!r} ends in {path.suffix or 'no suffix'!r}; data are read from {' and '.join(SUFFIXES)}",
            hint="convert the file, or name it by what it holds",
        )


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"correct the path: there is no directory {str(path.parent)!r} either"
    names = [p.name for p in path.parent.iterdir() if p.suffix in SUFFIXES]
    near = get_close_matches(path.name, names, n=1)
    return f"did you mean {str(path.parent / near[0])!r}?" if near else "correct the path"


def _packaged_files(name: str, packaged: Path) -> list[Path]:
    catalogue = packaged_names(packaged)
    if name in catalogue:
        return list(catalogue[name])
    if not catalogue:
        raise DataError(f"there is no packaged data set {name!r}, nor any other", hint="name files instead")
    near = get_close_matches(name, catalogue, n=1)
    hint = f"did you mean package:{near[0]}? " if near else ""
    raise DataError(
        f"there is no packaged data set {name!r}",
        where=f"package:{name}",
        hint=f"{hint}There are: {', '.join(f'package:{n}' for n in catalogue)}",
    )


def packaged_names(packaged: Path = PACKAGED) -> dict[str, tuple[Path, ...]]:
    """What can follow ``package:`` → the files that it stands for: ``NAME``, and ``NAME/FILE`` for each of its files."""
    catalogue: dict[str, tuple[Path, ...]] = {}
    for directory in sorted(p for p in packaged.glob("*") if p.is_dir()):
        files = tuple(sorted(p.resolve() for p in directory.iterdir() if p.suffix in SUFFIXES))
        if files:
            catalogue[directory.name] = files
            catalogue |= {f"{directory.name}/{path.stem}": (path,) for path in files}
    return catalogue


def _hub_input(rest: str) -> HubInput:
    repo, _, split = rest.partition(":")
    owner, _, name = repo.partition("/")
    if not owner or not name or "/" in name:
        raise DataError(
            f"'hub:{rest}' does not name a data set on the hub",
            hint="write hub:OWNER/NAME or hub:OWNER/NAME:SPLIT",
        )
    return HubInput(repo=repo, split=split or _DEFAULT_SPLIT)
