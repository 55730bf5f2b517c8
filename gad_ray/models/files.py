"""The files of a Hugging Face model directory: which are the weights, and what their headers say."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, cast

from gad_ray.errors import ModelError

_MAX_HEADER_BYTES = 100_000_000
_POINTER = b"version https://git-lfs"
_NUMBERS = {"F64", "F32", "F16", "BF16"}
_PACKED = (".qweight", ".weight_packed", ".SCB", ".absmax")
"""Ends of names under which GPTQ, AWQ, compressed-tensors and bitsandbytes store weights."""
_NAMED = "transformers_weights"
"""Key of config.json."""

_WHOLE, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: If the file cannot be read or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(
            f"cannot be read as JSON ({error})", where=str(path), hint="fetch or export the model again"
        ) from error
    if not isinstance(value, dict):
        raise ModelError("holds no JSON object", where=str(path), hint="fetch or export the model again")
    return cast("dict[str, Any]", value)


def check_has_config(directory: Path) -> None:
    """Check that a directory holds a model's config, and no adapter: transformers would load it on whatever base it names.

    Raises:
        ModelError: If it does not.
    """
    if not (directory / "config.json").is_file():
        if (directory / _ADAPTER).is_file():
            raise _adapter(directory, "is an adapter alone")
        raise ModelError(
            "the directory has no config.json, so it is no Hugging Face model",
            where=str(directory),
            hint="give the directory that holds config.json and *.safetensors",
        )
    if (directory / _ADAPTER).is_file():
        raise _adapter(directory, "holds an adapter beside the model")


def find_weights(directory: Path) -> list[Path]:
    """The safetensors files that transformers loads from a Hugging Face directory, and no others that lie there.

    Raises:
        ModelError: If config.json or weights are missing, one of several shards is, or an adapter lies there. Pickled
            weights are refused by name.
    """
    check_has_config(directory)
    if named := read_json(directory / "config.json").get(_NAMED):
        return _named_weights(directory, str(named))
    if (directory / _WHOLE).is_file():
        return [directory / _WHOLE]
    if (directory / _INDEX).is_file():
        return _shards(directory / _INDEX)
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    if others:
        raise ModelError(
            f"it has {', '.join(others[:3])}, and neither {_WHOLE} nor {_INDEX}, which transformers looks for",
            where=str(directory),
            hint="fetch the model again with all its *.json and *.safetensors files",
        )
    pickled = sorted(
        p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in directory.glob(pattern)
    )
    if pickled:
        raise ModelError(
            f"its weights are pickled ({', '.join(pickled[:3])}); loading pickles can run code, so they are refused",
            where=str(directory),
            hint="convert it where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)",
        )
    raise ModelError(
        "the directory has no *.safetensors weights",
        where=str(directory),
        hint="fetch the model again with its safetensors files, or give another directory",
    )


def _named_weights(directory: Path, name: str) -> list[Path]:
    """The files that the config itself names, which transformers takes before all others."""
    where = str(directory / "config.json")
    if not name.endswith((".safetensors", ".safetensors.index.json")):
        raise ModelError(
            f"{_NAMED} = {name!r} is no safetensors file; loading pickles can run code, so they are refused",
            where=where,
            hint="convert it where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)",
        )
    file = directory / name
    if not file.is_file():
        raise ModelError(
            f"{_NAMED} = {name!r}, and there is no such file",
            where=where,
            hint="fetch the model again with all its *.json and *.safetensors files",
        )
    return _shards(file) if name.endswith(".json") else [file]


def _shards(index: Path) -> list[Path]:
    directory = index.parent
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError("names no weights", where=str(index), hint="fetch or export the model again")
    shards = sorted({str(name) for name in cast("dict[str, object]", names).values()})
    lacking = [name for name in shards if not (directory / name).is_file()]
    if lacking:
        raise ModelError(
            f"{len(lacking)} of its {len(shards)} shards are missing: {', '.join(lacking[:3])}",
            where=str(directory),
            hint="fetch the model again; a download may have been broken off",
        )
    return [directory / name for name in shards]


def _adapter(directory: Path, what: str) -> ModelError:
    return ModelError(
        f"{what} ({_ADAPTER})",
        where=str(directory),
        hint="merge it into its base and save that (peft: merge_and_unload, save_pretrained), or move it elsewhere",
    )


def quantised(how: str, *, where: str) -> ModelError:
    """The refusal of quantised weights.

    Args:
        how: The method.
        where: The file that tells.
    """
    return ModelError(
        f"its weights are quantised ({how}), and quantised weights cannot be trained",
        where=where,
        hint="give the model's unquantised weights; model.lora saves memory instead",
    )


def read_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape of all weights that transformers loads from a Hugging Face directory.

    Raises:
        ModelError: As :func:`find_weights` and :func:`tensor_shapes`.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in find_weights(directory):
        shapes.update(tensor_shapes(file))
    return shapes


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape of a safetensors file, from the header alone; the file's length is held against it.

    Raises:
        ModelError: If the file is shorter or longer than its header says, or its weights are quantised: transformers would
            take packed numbers for weights.
    """
    size = path.stat().st_size
    damaged = ModelError(
        "is damaged or was not written to its end", where=str(path), hint="fetch the model again"
    )
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ModelError(
                "is a pointer of Git LFS and holds no weights",
                where=str(path),
                hint="run `git lfs pull` there",
            )
        file.seek(0)
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise damaged
        try:
            header = cast("dict[str, dict[str, Any]]", json.loads(file.read(length)))
            header.pop("__metadata__", None)
            ends = [int(entry["data_offsets"][1]) for entry in header.values()]
            shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
            types = {name: str(entry["dtype"]) for name, entry in header.items()}
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise damaged from error
    if size != 8 + length + max(ends, default=0):
        raise damaged
    for name, dtype in types.items():
        # Masks and positions may be integers; weights of less than 16 bits are quantised.
        if name.endswith(_PACKED) or (name.endswith("weight") and dtype not in _NUMBERS):
            raise quantised(f"{name} is of type {dtype}", where=str(path))
    return shapes


def has_chat_template(directory: Path) -> bool:
    """Whether a tokenizer directory brings a chat template, in any of the places it can be."""
    if (directory / "chat_template.jinja").is_file() or (directory / "chat_template.json").is_file():
        return True
    config = directory / "tokenizer_config.json"
    return config.is_file() and bool(read_json(config).get("chat_template"))
