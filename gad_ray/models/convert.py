"""GGUF files to Hugging Face directories, once each, into a cache that several processes may share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gad_ray.activity import activity
from gad_ray.errors import ModelError
from gad_ray.models.facts import facts_of_gguf
from gad_ray.models.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CONVERSION_VERSION = 1
"""Raise it when a conversion comes to give other files: older ones are then made again."""

_MARK = "conversion.json"


def find_converted(gguf: Path, *, cache_dir: Path) -> Path | None:
    """The whole, current conversion of a GGUF file, or None if there is none yet.

    Cheap: the file's digest is remembered by its path, size and time of change.

    Args:
        gguf: The file.
        cache_dir: Where conversions are kept.
    """
    index = _index_file(gguf, cache_dir)
    if not index.is_file():
        return None
    directory = cache_dir / str(read_json(index)["directory"])
    return directory if _is_whole(directory) else None


def convert_gguf(gguf: Path, *, cache_dir: Path) -> Path:
    """Convert a GGUF file to a directory of bfloat16 safetensors, tokenizer, template and configs.

    Safe for many processes at once: one converts while the others wait for it. A conversion appears by one
    rename when it is complete; one that was broken off is never used.

    Args:
        gguf: The file.
        cache_dir: Where conversions are kept, as ``<stem>-<first 12 of the file's SHA-256>``.

    Returns:
        The directory.

    Raises:
        ModelError: If the file is not GGUF, or of an architecture that transformers cannot convert.
    """
    found = find_converted(gguf, cache_dir=cache_dir)
    if found:
        return found
    from filelock import FileLock

    from gad_ray.models.quiet import without_progress_bars

    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        index = _index_file(gguf, cache_dir)
        directory = cache_dir / f"{gguf.stem}-{_sha256(gguf)[:12]}"
        with FileLock(cache_dir / f".{directory.name}.lock"):
            if not _is_whole(directory):
                with activity(f"converting {gguf.name}, once for this machine"), without_progress_bars():
                    _convert_into(gguf, directory)
            _write_atomically(index, {"source": str(gguf), "directory": directory.name})
    except OSError as error:
        raise ModelError(
            f"cannot be converted: {error}",
            where=str(gguf),
            hint=f"free space under {cache_dir}, or point GAD_RAY_CACHE at a writable directory",
        ) from error
    return directory


def _index_file(gguf: Path, cache_dir: Path) -> Path:
    """Where the digest of this very file is remembered; another file, size or time gives another name."""
    stat = gguf.stat()
    key = f"{gguf.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    return cache_dir / f".{gguf.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _is_whole(directory: Path) -> bool:
    """Whether every file of a conversion is there in its full size, made by this version of the code."""
    mark = directory / _MARK
    if not mark.is_file():
        return False
    record = read_json(mark)
    files: dict[str, int] = record["files"]
    return record["version"] == _CONVERSION_VERSION and all(
        (directory / name).is_file() and (directory / name).stat().st_size == size
        for name, size in files.items()
    )


def _convert_into(gguf: Path, directory: Path) -> None:
    """Convert beside the destination and move it there whole. The caller holds the lock."""
    facts_of_gguf(gguf, name=str(gguf))  # a damaged file is named here, not deep inside a loader
    prefix = f".{directory.name}.converting-"
    for abandoned in directory.parent.glob(f"{prefix}*"):  # its maker died: the lock is ours
        shutil.rmtree(abandoned, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
    try:
        _write_model(gguf, staging)
        sizes = {path.name: path.stat().st_size for path in staging.iterdir()}
        _write_atomically(staging / _MARK, {"version": _CONVERSION_VERSION, "files": sizes})
        for path in staging.iterdir():
            _sync(path)
        staging.chmod(0o755)
        if directory.exists():  # incomplete, or made by another version
            shutil.rmtree(directory)
        staging.rename(directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_model(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from gad_ray.models.load import save_clean

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),  # else, given the kernels, weights stay packed
        )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"transformers cannot convert it ({error})",
            where=str(gguf),
            hint="give the model as a Hugging Face directory with safetensors instead",
        ) from error
    # What was read from GGUF refuses to be saved, even unpacked: a clean model takes its weights.
    save_clean(model, model.state_dict(), out)
    _mend_pre_tokenizer(tokenizer, gguf)
    tokenizer.save_pretrained(str(out))


def _mend_pre_tokenizer(tokenizer: PreTrainedTokenizerFast, gguf: Path) -> None:
    """Give SmolLM's tokenizers back their digit splitting, which transformers' GGUF reader leaves out.

    Without it, runs of spaces before digits come out as other tokens than the model was trained on.
    """
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    field = GGUFReader(str(gguf)).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        backend: Any = tokenizer.backend_tokenizer
        backend.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_atomically(path: Path, value: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    part.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
