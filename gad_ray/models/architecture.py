"""What a model's config says, read by transformers itself, and what of it cannot be trained here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gad_ray.errors import ModelError
from gad_ray.models.files import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A language model's shape. A size that its config does not say is None, which means unknown and not unlimited.

    Attributes:
        name: Model type as Hugging Face and GGUF name it, e.g. ``llama``.
        vocab_size: Rows of the embedding.
        max_positions: Longest sequence it was made for, in tokens.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the feed-forward layers; None also where each has its own.
        num_layers: Transformer blocks.
        key_value_width: Numbers that a token's keys take in one layer: key-value heads times their width.
        tied_embeddings: Whether the output head shares the embedding's weights.
    """

    name: str
    vocab_size: int | None
    max_positions: int | None
    hidden_size: int | None
    intermediate_size: int | None
    num_layers: int | None
    key_value_width: int | None
    tied_embeddings: bool

    @property
    def sizes_are_known(self) -> bool:
        """Whether its memory can be estimated."""
        return None not in (self.vocab_size, self.hidden_size, self.num_layers)


def read_architecture(directory: Path) -> Architecture:
    """Read what a Hugging Face directory's config says.

    Raises:
        ModelError: If transformers cannot read it, or the model cannot be trained here.
    """
    whole = load_config(directory)
    config: Any = whole.get_text_config(decoder=True)
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    key_value_heads = _size(config, "num_key_value_heads") or heads
    head_width = _size(config, "head_dim") or (hidden // heads if hidden and heads else None)
    return Architecture(
        name=str(whole.model_type),
        vocab_size=_size(config, "vocab_size"),
        max_positions=_size(config, "max_position_embeddings"),
        hidden_size=hidden,
        intermediate_size=_size(config, "intermediate_size"),
        num_layers=_size(config, "num_hidden_layers"),
        key_value_width=key_value_heads * head_width if key_value_heads and head_width else None,
        tied_embeddings=bool(getattr(config, "tie_word_embeddings", False)),
    )


def load_config(directory: Path) -> Any:
    """A model's config, as transformers reads it, if the model is one that can be trained here.

    Raises:
        ModelError: If transformers cannot read it; if the model needs code of its own, is no causal language model, or its
            weights are quantised.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    raw = read_json(directory / "config.json")
    try:
        config: Any = AutoConfig.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # each model type checks its config in its own way, with errors of any kind
        if "auto_map" in raw:
            raise ModelError(
                f"model type {raw.get('model_type')!r} needs Python code of its own (auto_map), which is not run",
                where=str(directory),
                hint="choose a model that transformers knows itself",
            ) from error
        raise ModelError(
            f"transformers cannot read its config.json: {_first_line(error)}",
            where=str(directory),
            hint="check model_type and sizes, or install a transformers that knows this model",
        ) from error
    if config.is_encoder_decoder:
        raise ModelError(
            f"model type {config.model_type!r} is an encoder with a decoder; policy and critic are decoders alone",
            where=str(directory),
            hint="choose a causal language model, such as those of the types llama, qwen2 or gemma",
        )
    if type(config) not in cast("Any", MODEL_FOR_CAUSAL_LM_MAPPING):
        raise ModelError(
            f"model type {config.model_type!r} has no causal language model in transformers",
            where=str(directory),
            hint="choose a causal language model; of one that also sees or hears, its language model alone",
        )
    if quantised := _quantisation(config):
        raise ModelError(
            f"its weights are quantised ({quantised}), and quantised weights cannot be trained",
            where=str(directory),
            hint="give the model's unquantised weights; policy.model.lora saves memory instead",
        )
    return config


def hidden_size_of(model: Any) -> int:
    """Width of a loaded model's residual stream, also where the config holds that of its language model apart."""
    return int(model.config.get_text_config(decoder=True).hidden_size)


def check_vocabulary(largest_id: int, num_rows: int | None, *, where: str) -> None:
    """Check that every token of a tokenizer has a row in the embedding.

    Args:
        largest_id: Largest token id that the tokenizer gives.
        num_rows: Rows of the embedding; None where they are not known.
        where: The model.

    Raises:
        ModelError: If there are too few.
    """
    if num_rows is not None and largest_id >= num_rows:
        raise ModelError(
            f"its tokenizer gives token ids up to {largest_id}, and its embedding has {num_rows} rows, for ids up to "
            f"{num_rows - 1}",
            where=where,
            hint="give the tokenizer that belongs to the model, or resize the model's embedding and save it again",
        )


def check_checkpointing(model: Any, *, wanted: bool, where: str) -> None:
    """Check that a model can recompute its activations, if that is wanted.

    Raises:
        ModelError: If it cannot.
    """
    if wanted and not model.supports_gradient_checkpointing:
        raise ModelError(
            f"model type {model.config.model_type!r} cannot recompute activations",
            where=where,
            hint="set model.gradient_checkpointing=false",
        )


def _quantisation(config: Any) -> str:
    found = getattr(config, "quantization_config", None)
    if not found:
        return ""
    settings = cast("dict[str, Any]", found if isinstance(found, dict) else found.to_dict())
    return str(settings.get("quant_method") or settings.get("quantization_method") or "method not named")


def _size(config: Any, name: str) -> int | None:
    """A size by transformers' common name, which its attribute map translates; None where it is not one positive number."""
    value = getattr(config, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
