"""What can be said about a model without loading its weights: read from JSON, safetensors and GGUF headers."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from gad_ray.errors import ModelError

_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model in figures.

    Attributes:
        name: The name it was asked for by.
        format: ``safetensors`` (a Hugging Face directory) or ``gguf``.
        architecture: Model type as Hugging Face and GGUF name it, e.g. ``llama``.
        num_parameters: Parameters; a tied output head is counted once.
        vocab_size: Rows of the embedding.
        max_positions: Longest sequence it was made for, in tokens; 0 where its config does not say.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the feed-forward layers; 0 where its config does not say.
        num_layers: Transformer blocks.
        tied_embeddings: Whether the output head shares the embedding's weights.
        has_chat_template: Whether its tokenizer brings a chat template.
        num_bytes: Size of its weights on disk, in bytes.
    """

    name: str
    format: Literal["safetensors", "gguf"]
    architecture: str
    num_parameters: int
    vocab_size: int
    max_positions: int
    hidden_size: int
    num_layers: int
    tied_embeddings: bool
    has_chat_template: bool
    num_bytes: int
    intermediate_size: int = 0


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: If the file cannot be read or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"cannot be read as JSON ({error})", where=str(path), mend="fetch or export the model again"
        ) from error
    if not isinstance(value, dict):
        raise ModelError("holds no JSON object", where=str(path), mend="fetch or export the model again")
    return cast("dict[str, Any]", value)


def check_model_directory(directory: Path) -> list[Path]:
    """Check that a directory is a Hugging Face model with safetensors weights.

    Args:
        directory: The directory.

    Returns:
        Its safetensors files, sorted.

    Raises:
        ModelError: If config.json or safetensors weights are missing; pickled weights are refused by name.
    """
    if not (directory / "config.json").is_file():
        raise ModelError(
            "the directory has no config.json, so it is no Hugging Face model",
            where=str(directory),
            mend="give the directory that holds config.json and *.safetensors",
        )
    weights = sorted(directory.glob("*.safetensors"))
    if weights:
        return weights
    pickled = sorted(
        p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in directory.glob(pattern)
    )
    if pickled:
        raise ModelError(
            f"its weights are pickled ({', '.join(pickled[:3])}); loading pickles can run code, so they are refused",
            where=str(directory),
            mend="convert it where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)",
        )
    raise ModelError(
        "the directory has no *.safetensors weights",
        where=str(directory),
        mend="fetch the model again with its safetensors files, or give another directory",
    )


def facts_of_directory(directory: Path, *, name: str) -> ModelFacts:
    """Read the facts of a Hugging Face directory from config.json and the safetensors headers.

    Raises:
        ModelError: If a file is missing, or a weights file is shorter or longer than its header says.
    """
    weights = check_model_directory(directory)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weights:
        shapes.update(_safetensors_shapes(file))
    config = read_json(directory / "config.json")
    tied = bool(config.get("tie_word_embeddings", False)) or "lm_head.weight" not in shapes
    if tied:
        shapes.pop("lm_head.weight", None)
    return ModelFacts(
        name=name,
        format="safetensors",
        architecture=str(config.get("model_type", "unknown")),
        num_parameters=sum(math.prod(shape) for shape in shapes.values()),
        vocab_size=int(config.get("vocab_size", 0)),
        max_positions=int(config.get("max_position_embeddings", 0)),
        hidden_size=int(config.get("hidden_size", 0)),
        num_layers=int(config.get("num_hidden_layers", 0)),
        tied_embeddings=tied,
        has_chat_template=has_chat_template(directory),
        num_bytes=sum(file.stat().st_size for file in weights),
        intermediate_size=width_of_feed_forward(config),
    )


def width_of_feed_forward(config: Mapping[str, Any]) -> int:
    """Width of the feed-forward layers; 0 where a config does not say, or has one for each layer."""
    width = config.get("intermediate_size")
    return width if isinstance(width, int) else 0


def has_chat_template(directory: Path) -> bool:
    """Whether a tokenizer directory brings a chat template, in any of the places it can be."""
    if (directory / "chat_template.jinja").is_file() or (directory / "chat_template.json").is_file():
        return True
    config = directory / "tokenizer_config.json"
    return config.is_file() and bool(read_json(config).get("chat_template"))


def _safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape, from the header alone; the file's length is held against it."""
    size = path.stat().st_size
    damaged = ModelError(
        "is damaged or was not written to its end", where=str(path), mend="fetch the model again"
    )
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise damaged
        try:
            header = cast("dict[str, dict[str, Any]]", json.loads(file.read(length)))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise damaged from error
    header.pop("__metadata__", None)
    ends = [int(entry["data_offsets"][1]) for entry in header.values()]
    if size != 8 + length + max(ends, default=0):
        raise damaged
    return {name: tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}


def facts_of_gguf(path: Path, *, name: str) -> ModelFacts:
    """Read the facts of a GGUF file from its metadata.

    Raises:
        ModelError: If it is no GGUF file, or is damaged.
    """
    # Imported here: reading GGUF needs a package that training from safetensors does not.
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(path))
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(
            f"cannot be read as GGUF ({error})",
            where=str(path),
            mend="check that the file is whole; fetch it again",
        ) from error
    # The big arrays (vocabulary, merges) are only counted: decoding them takes seconds.
    values: dict[str, Any] = {
        key: len(field.data) if len(field.types) > 1 else field.contents()
        for key, field in reader.fields.items()
    }
    architecture = str(values.get("general.architecture", "unknown"))
    tensors = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    return ModelFacts(
        name=name,
        format="gguf",
        architecture=architecture,
        num_parameters=sum(tensors.values()),
        vocab_size=_gguf_int(values, f"{architecture}.vocab_size")
        or _gguf_int(values, "tokenizer.ggml.tokens"),
        max_positions=_gguf_int(values, f"{architecture}.context_length"),
        hidden_size=_gguf_int(values, f"{architecture}.embedding_length"),
        num_layers=_gguf_int(values, f"{architecture}.block_count"),
        tied_embeddings="output.weight" not in tensors,
        has_chat_template=bool(values.get("tokenizer.chat_template")),
        num_bytes=path.stat().st_size,
        intermediate_size=_gguf_int(values, f"{architecture}.feed_forward_length"),
    )


def _gguf_int(values: Mapping[str, Any], key: str) -> int:
    return int(values.get(key, 0))
