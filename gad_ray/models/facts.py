"""What can be said about a model without loading its weights: from its config, and from safetensors and GGUF headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gad_ray.errors import ModelError
from gad_ray.models.architecture import Architecture, check_vocabulary, read_architecture
from gad_ray.models.files import find_weights, has_chat_template, read_shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model in figures.

    Attributes:
        name: The name it was asked for by.
        format: ``safetensors`` (a Hugging Face directory) or ``gguf``.
        architecture: Its shape.
        num_parameters: Parameters; a tied output head is counted once.
        has_chat_template: Whether its tokenizer brings a chat template.
        num_bytes: Size of its weights on disk, in bytes.
    """

    name: str
    format: Literal["safetensors", "gguf"]
    architecture: Architecture
    num_parameters: int
    has_chat_template: bool
    num_bytes: int


def facts_of_directory(directory: Path, *, name: str) -> ModelFacts:
    """Read the facts of a Hugging Face directory from config.json and the safetensors headers.

    Raises:
        ModelError: If the model cannot be loaded and trained here; see :func:`find_weights` and :func:`read_architecture`.
    """
    shapes = read_shapes(directory)
    architecture = read_architecture(directory)
    if architecture.tied_embeddings:
        shapes.pop("lm_head.weight", None)
    return ModelFacts(
        name=name,
        format="safetensors",
        architecture=architecture,
        num_parameters=sum(math.prod(shape) for shape in shapes.values()),
        has_chat_template=has_chat_template(directory),
        num_bytes=sum(file.stat().st_size for file in find_weights(directory)),
    )


def facts_of_gguf(path: Path, *, name: str) -> ModelFacts:
    """Read the facts of a GGUF file from its metadata.

    Raises:
        ModelError: If it is no GGUF file, is damaged, or holds no whole decoder that transformers can convert.
    """
    # Imported here: reading GGUF needs a package that training from safetensors does not.
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(path))
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(
            f"cannot be read as GGUF ({error})",
            where=str(path),
            hint="check that the file is whole; fetch it again",
        ) from error
    # The big arrays (vocabulary, merges) are only counted: decoding them takes seconds.
    values: dict[str, Any] = {
        key: len(field.data) if len(field.types) > 1 else field.contents()
        for key, field in reader.fields.items()
        if len(field.types) == 1 or key.startswith("tokenizer.")
    }
    tensors = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    rows = next((int(t.shape[-1]) for t in reader.tensors if t.name == "token_embd.weight"), None)
    _check_gguf(values, where=str(path))
    check_vocabulary(int(values.get("tokenizer.ggml.tokens", 0)) - 1, rows, where=str(path))
    return ModelFacts(
        name=name,
        format="gguf",
        architecture=_gguf_architecture(values, rows=rows, tied="output.weight" not in tensors),
        num_parameters=sum(tensors.values()),
        has_chat_template=bool(values.get("tokenizer.chat_template")),
        num_bytes=path.stat().st_size,
    )


def _check_gguf(values: Mapping[str, Any], *, where: str) -> None:
    """Check what a GGUF file says of itself before minutes are spent on its conversion."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    kind, num_files = values.get("general.type", "model"), int(values.get("split.count", 1))
    if kind != "model":
        raise ModelError(
            f"holds no model: its general.type is {kind!r}", where=where, hint="give the model's own file"
        )
    if num_files > 1:
        raise ModelError(
            f"is one of {num_files} files of a model (split.count), which transformers cannot convert",
            where=where,
            hint="merge them with `llama-gguf-split --merge`, or give a Hugging Face directory",
        )
    name = str(values.get("general.architecture", "unknown"))
    if "t5" in name:
        raise ModelError(
            f"model type {name!r} is an encoder with a decoder; policy and critic are decoders alone",
            where=where,
            hint="choose a causal language model, such as those of the types llama, qwen2 or gemma",
        )
    # llama.cpp writes `qwen2moe` and `gpt-oss` where transformers has `qwen2_moe` and `gpt_oss`.
    known = {architecture.replace("_", "") for architecture in GGUF_SUPPORTED_ARCHITECTURES}
    if name.replace("-", "").replace("_", "") not in known:
        raise ModelError(
            f"transformers cannot convert GGUF files of the architecture {name!r}",
            where=where,
            hint="give the model as a Hugging Face directory with safetensors instead",
        )


def _gguf_architecture(values: Mapping[str, Any], *, rows: int | None, tied: bool) -> Architecture:
    name = str(values.get("general.architecture", "unknown"))

    def size(key: str) -> int | None:
        return int(values.get(key, 0)) or None

    hidden, heads = size(f"{name}.embedding_length"), size(f"{name}.attention.head_count")
    key_value_heads = size(f"{name}.attention.head_count_kv") or heads
    head_width = size(f"{name}.attention.key_length") or (hidden // heads if hidden and heads else None)
    return Architecture(
        name=name,
        vocab_size=rows or size(f"{name}.vocab_size") or size("tokenizer.ggml.tokens"),
        max_positions=size(f"{name}.context_length"),
        hidden_size=hidden,
        intermediate_size=size(f"{name}.feed_forward_length"),
        num_layers=size(f"{name}.block_count"),
        key_value_width=key_value_heads * head_width if key_value_heads and head_width else None,
        tied_embeddings=tied,
    )
