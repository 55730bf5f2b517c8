"""What a model's config says, read by transformers itself, and what of it cannot be trained here."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from gad_ray.errors import ModelError
from gad_ray.models.files import quantised, read_json


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
        key_value_width: Numbers that a token's keys take in one layer: key-value heads times their width. Half of what
            latent attention keeps for both; where layers differ, that of the widest.
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
    return Architecture(
        name=str(whole.model_type),
        vocab_size=_size(config, "vocab_size"),
        max_positions=_size(config, "max_position_embeddings"),
        hidden_size=_size(config, "hidden_size"),
        intermediate_size=_size(config, "intermediate_size"),
        num_layers=_size(config, "num_hidden_layers"),
        key_value_width=_key_value_width(config),
        tied_embeddings=bool(getattr(config, "tie_word_embeddings", False)),
    )


def _key_value_width(config: Any) -> int | None:
    """Numbers of a token's keys in one layer, as transformers keeps them."""
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    if (latent := _size(config, "kv_lora_rank")) is not None:
        # Latent attention keeps what keys and values are unfolded from, and the part of keys that is rotated.
        rotated = _size(config, "qk_rope_head_dim")
        return None if rotated is None else (latent + rotated + 1) // 2
    key_value_heads = _size(config, "num_key_value_heads") or heads
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        key_value_heads = 1  # Falcon has no other word for it
    head_width = _size(config, "head_dim") or (hidden // heads if hidden and heads else None)
    return key_value_heads * head_width if key_value_heads and head_width else None


def load_config(directory: Path) -> Any:
    """A model's config, as transformers reads it, if the model is one that can be trained here.

    Raises:
        ModelError: If transformers cannot read it; if the model needs code of its own, is no causal language model, or its
            weights are quantised.
    """
    from transformers import AutoConfig

    where = str(directory / "config.json")
    raw = read_json(directory / "config.json")
    if not raw.get("model_type"):  # transformers would guess it from the directory's name
        raise ModelError("names no model_type", where=where, hint="fetch or export the model again")
    try:
        config: Any = AutoConfig.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # each model type checks its config in its own way, with errors of any kind
        if "auto_map" in raw:
            raise ModelError(
                f"model type {raw['model_type']!r} needs Python code of its own (auto_map), which is not run",
                where=where,
                hint="choose a model that transformers knows itself",
            ) from error
        raise ModelError(
            f"transformers cannot read its config.json: {first_line(error)}",
            where=where,
            hint="check model_type and sizes, or install a transformers that knows this model",
        ) from error
    _check_is_decoder(config, where=where)
    if how := _quantisation(config) or _quantisation(config.get_text_config(decoder=True)):
        raise quantised(how, where=where)
    return config


def _check_is_decoder(config: Any, *, where: str) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, MODEL_MAPPING

    if config.is_encoder_decoder:
        raise ModelError(
            f"model type {config.model_type!r} is an encoder with a decoder; policy and critic are decoders alone",
            where=where,
            hint="choose a causal language model, such as those of the types llama, qwen2 or gemma",
        )
    kind = type(config)
    # A policy needs the one, a critic the other.
    if any(kind not in cast("Any", mapping) for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING)):
        raise ModelError(
            f"model type {config.model_type!r} has no causal language model in transformers",
            where=where,
            hint="choose a causal language model; of one that also sees or hears, its language model alone",
        )
    try:
        text = config.get_text_config(decoder=True)
    except ValueError as error:  # several of them, and none is the language model's
        raise ModelError(
            f"model type {config.model_type!r} has no language model of its own: {first_line(error)}",
            where=where,
            hint="give the directory of its language model alone",
        ) from error
    is_encoder = kind in cast("Any", MODEL_FOR_MASKED_LM_MAPPING) and not getattr(config, "is_decoder", False)
    if is_encoder or getattr(text, "use_bidirectional_attention", None) in (True, "all"):
        raise ModelError(
            f"model type {config.model_type!r} is an encoder here: its tokens see those that follow them",
            where=where,
            hint="choose a causal language model, such as those of the types llama, qwen2 or gemma",
        )


def hidden_size_of(model: Any) -> int:
    """Width of a loaded model's last hidden states, also where the config holds that of its language model apart.

    Raises:
        ModelError: If the config does not say it.
    """
    config = model.config.get_text_config(decoder=True)
    # OPT may project its last layer back to the embedding's width.
    width = _size(config, "word_embed_proj_dim") or _size(config, "hidden_size")
    if width is None:
        raise ModelError(
            f"model type {model.config.model_type!r} does not say its hidden_size, which the value head needs",
            where=str(model.config.name_or_path) or None,
            hint="choose another model for the critic",
        )
    return width


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


def check_keeps_cache(model: Any, *, where: str) -> None:
    """Check that a model can go on from the keys and values of earlier tokens, as rollout by transformers does.

    Raises:
        ModelError: If it cannot.
    """
    signature = inspect.signature(model.forward)
    outputs = get_args(signature.return_annotation) or (signature.return_annotation,)
    given = any("past_key_values" in getattr(output, "__dataclass_fields__", {}) for output in outputs)
    if not given or "past_key_values" not in signature.parameters:
        raise ModelError(
            f"model type {model.config.model_type!r} keeps no cache of keys and values, with which "
            "rollout.engine = transformers generates",
            where=where,
            hint="set rollout.engine=vllm if vLLM knows this model, or choose another",
        )


def _quantisation(config: Any) -> str:
    found = getattr(config, "quantization_config", None)
    if not found:
        return ""
    settings = cast("dict[str, Any]", found if isinstance(found, dict) else found.to_dict())
    return str(settings.get("quant_method") or settings.get("quantization_method") or "method not named")


def _size(config: Any, name: str) -> int | None:
    """A size by transformers' common name, which its attribute map translates; None where it is not one positive number."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # each layer has its own
        values = [getattr(layer, name, None) for layer in config.per_layer_config]
        value = max((each for each in values if isinstance(each, int)), default=None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def first_line(error: Exception) -> str:
    """What an error says first, in one line; its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return told or type(error).__name__
