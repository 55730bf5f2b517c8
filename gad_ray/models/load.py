"""Loading models from safetensors, LoRA, and writing models that transformers and vLLM load."""

from __future__ import annotations

import copy
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from gad_ray.errors import ModelError
from gad_ray.models.architecture import check_checkpointing, first_line, load_config
from gad_ray.models.files import read_shapes
from gad_ray.models.quiet import without_progress_bars, without_warnings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from gad_ray.models.chat import ChatFormat

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""By the names that configurations use."""

_ADAPTER_SEED = 0
_logger = logging.getLogger(__name__)


def load_causal_lm(
    model_dir: Path,
    *,
    dtype: torch.dtype,
    gradient_checkpointing: bool = False,
    attn_implementation: str | None = None,
    on_meta: bool = False,
) -> PreTrainedModel:
    """Load a language model with its output head, in evaluation mode, on the CPU.

    Args:
        model_dir: A Hugging Face directory with safetensors weights.
        dtype: Type of the loaded weights.
        gradient_checkpointing: Recompute activations in the backward pass.
        attn_implementation: An attention of transformers, e.g. ``sdpa`` or ``eager``; its choice when None.
        on_meta: Load shapes alone: all is checked, no weight is read.

    Raises:
        ModelError: If the directory is no such model, or weights are missing from it.
    """
    from transformers import AutoModelForCausalLM

    model = _load(AutoModelForCausalLM.from_pretrained, model_dir, dtype, attn_implementation, on_meta)
    check_checkpointing(model, wanted=gradient_checkpointing, where=str(model_dir))
    if gradient_checkpointing:
        # The cache of keys and values cannot be kept when activations are not.
        model.config.use_cache = False
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def load_backbone(
    model_dir: Path,
    *,
    dtype: torch.dtype,
    gradient_checkpointing: bool = False,
    attn_implementation: str | None = None,
    on_meta: bool = False,
) -> PreTrainedModel:
    """Load a language model without its output head: its forward pass ends in hidden states.

    Args:
        model_dir: A Hugging Face directory with safetensors weights, of a causal LM or of a backbone.
        dtype: Type of the loaded weights.
        gradient_checkpointing: Recompute activations in the backward pass.
        attn_implementation: An attention of transformers, e.g. ``sdpa`` or ``eager``; its choice when None.
        on_meta: Load shapes alone: all is checked, no weight is read.

    Raises:
        ModelError: If the directory is no such model, or weights are missing from it.
    """
    from transformers import AutoModel

    model = _load(AutoModel.from_pretrained, model_dir, dtype, attn_implementation, on_meta)
    model.config.use_cache = False
    check_checkpointing(model, wanted=gradient_checkpointing, where=str(model_dir))
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def empty_backbone(model_dir: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """A language model without its output head, as :func:`load_backbone` makes it, that waits for its weights.

    Args:
        model_dir: A directory with the model's ``config.json``.
        dtype: Type of the weights to come; ``load_state_dict(..., assign=True)`` puts them in.

    Raises:
        ModelError: If the config is of no model that transformers knows.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModel

    try:
        config: Any = AutoConfig.from_pretrained(
            str(model_dir), trust_remote_code=False, local_files_only=True
        )
        # Buffers are no part of the weights: they are made as ever.
        with init_empty_weights(include_buffers=False):
            model: Any = AutoModel.from_config(config, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"cannot be built by transformers ({error})",
            where=str(model_dir),
            hint="use the same release of transformers in all processes",
        ) from error
    model.config.use_cache = False
    return cast("PreTrainedModel", model.eval())


def _load(
    loader: Callable[..., Any],
    model_dir: Path,
    dtype: torch.dtype,
    attn_implementation: str | None,
    on_meta: bool,
) -> PreTrainedModel:
    read_shapes(model_dir)
    config = load_config(model_dir)
    options: dict[str, Any] = (
        {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    )
    if on_meta:
        options["device_map"] = "meta"
    try:
        with without_progress_bars(), without_warnings():
            model, info = loader(
                str(model_dir),
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **options,
            )
    except Exception as error:  # each model type is built in its own way, with errors of any kind
        raise ModelError(
            f"cannot be loaded by transformers ({type(error).__name__}: {first_line(error)}{_told_of_padding(config)})",
            where=str(model_dir),
            hint="check that it is a causal language model that the installed transformers knows, and whole",
        ) from error
    if differing := sorted(info["mismatched_keys"], key=str):
        name, found, wanted = differing[0]
        raise ModelError(
            f"{len(differing)} weights have other shapes than its config.json says, e.g. {name}: "
            f"{list(found)} and not {list(wanted)}",
            where=str(model_dir),
            hint="give the config.json that belongs to the weights",
        )
    lacking = sorted(str(name) for name in info["missing_keys"])
    if lacking:  # transformers would go on with random values in their place
        raise ModelError(
            f"{len(lacking)} weights are missing, e.g. {lacking[0]}",
            where=str(model_dir),
            hint="fetch or export the model again, or use a directory that has them",
        )
    # The output head that a critic leaves out is no part of a layer.
    if unused := sorted(str(name) for name in info["unexpected_keys"] if re.search(r"\.\d+\.", str(name))):
        _logger.warning(
            "warning: %d weights in %s have no place in the model that its config.json describes, e.g. %s",
            len(unused),
            model_dir,
            unused[0],
        )
    return cast("PreTrainedModel", model)


def _told_of_padding(config: Any) -> str:
    """The one fault that transformers tells without its figures."""
    text = config.get_text_config(decoder=True)
    padding, rows = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if isinstance(padding, int) and isinstance(rows, int) and padding >= rows:
        return f"; pad_token_id = {padding}, vocab_size = {rows}"
    return ""


def apply_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    target_modules: tuple[str, ...] | Literal["all-linear"],
) -> PeftModel:
    """Freeze a model and give its linear layers low-rank adapters, which alone are trained.

    The adapters' weights are float32 whatever the model's type is, and start as a change of nothing. They are the
    same at every call: the ranks of a group, and a run that is repeated, begin alike.

    Args:
        model: The model; it is changed in place and lives inside the result.
        rank: Rank of the adapters.
        alpha: The adapter's output is multiplied by ``alpha / rank``.
        target_modules: Names of layers, e.g. ``q_proj``, or ``all-linear``: all but the output head.

    Raises:
        ModelError: If a named layer is not in the model.
    """
    from peft import LoraConfig, get_peft_model

    if not isinstance(target_modules, str):
        check_lora_targets(model, target_modules)
    # peft declares alpha an integer, and computes with what it is given.
    config = LoraConfig(
        r=rank,
        lora_alpha=cast("int", alpha),
        target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
        lora_dropout=0.0,
        bias="none",
    )
    with torch.random.fork_rng():
        torch.manual_seed(_ADAPTER_SEED)
        try:
            return cast("PeftModel", get_peft_model(model, config))
        except ValueError as error:
            raise ModelError(
                f"peft cannot put adapters on it ({first_line(error)})",
                where=str(model.config.name_or_path) or None,
                hint="choose other layers with lora.target_modules",
            ) from error


def check_lora_targets(model: nn.Module, target_modules: Sequence[str]) -> None:
    """Check that a model has the linear layers that adapters are to be put on.

    Raises:
        ModelError: If a named layer is not in the model.
    """
    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    unknown = [name for name in target_modules if name not in linear]
    if unknown:
        raise ModelError(
            f"lora.target_modules names {unknown[0]!r}, which the model does not have",
            hint=f"choose among {', '.join(sorted(linear))}",
        )


def merged_state_dict(
    model: PreTrainedModel | PeftModel, *, dtype: torch.dtype | None = None, adapters: bool = True
) -> dict[str, Tensor]:
    """All of :func:`merged_weights`, whole; see there."""
    return dict(merged_weights(model, dtype=dtype, adapters=adapters))


@torch.no_grad()
def merged_weights(
    model: PreTrainedModel | PeftModel,
    *,
    dtype: torch.dtype | None = None,
    adapters: bool = True,
    master: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """All weights under their plain Hugging Face names, with LoRA adapters added in, one after the other.

    The live model is not changed. A tied output head appears under its own name (``lm_head.weight``) as well, and
    shares one tensor with what it is tied to. Adapters are added in float32, so that small changes survive in a
    bfloat16 model when ``dtype`` is float32.

    Args:
        model: A transformers model, with or without adapters.
        dtype: Type of floating-point weights in the result; as they are in the model when None.
        adapters: Add the adapters in; else the weights are those that the adapters were put on.
        master: Gives a more exact copy of a weight, to be cast where another type is wanted than the model's.

    Yields:
        Name and detached tensor. Weights that need no change share memory with the live model: copy what must
        outlive the next update.
    """
    from peft.tuners.lora import LoraLayer

    base = plain_model(model)
    adapted = {name: part for name, part in base.named_modules() if isinstance(part, LoraLayer)}
    live = {name: cast("Tensor", tensor).detach() for name, tensor in base.state_dict().items()}
    uses = Counter(tensor.data_ptr() for tensor in live.values())
    tied: dict[int, Tensor] = {}
    for name, value in live.items():
        if ".lora_" in name:
            continue
        owner, _, rest = name.partition(".base_layer.")
        plain_name = f"{owner}.{rest}" if rest else name
        if adapters and rest == "weight" and owner in adapted:
            yield plain_name, _with_adapters(value, cast("Any", adapted[owner]), dtype or value.dtype)
        elif dtype in (None, value.dtype) or not value.is_floating_point():
            yield plain_name, value
        else:
            place = value.data_ptr()
            found = tied[place] if place in tied else (master or _itself)(value).to(dtype)
            if uses[place] > 1:
                tied[place] = found
            yield plain_name, found


def _itself(value: Tensor) -> Tensor:
    return value


def _with_adapters(weight: Tensor, layer: Any, dtype: torch.dtype) -> Tensor:
    merged = weight.to(torch.float32, copy=True)
    for adapter in layer.active_adapters:
        merged += layer.get_delta_weight(adapter).to(torch.float32)
    return merged.to(dtype)


def is_adapted(model: PreTrainedModel | PeftModel) -> bool:
    """Whether a model has LoRA adapters around it."""
    from peft import PeftModel as Wrapped

    return isinstance(model, Wrapped)


def plain_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model itself: what peft wrapped, or the model as it is."""
    from peft import PeftModel as Wrapped

    return cast(
        "PreTrainedModel", cast("Any", model).get_base_model() if isinstance(model, Wrapped) else model
    )


def export_hf(
    model: PreTrainedModel | PeftModel,
    chat_or_tokenizer_dir: ChatFormat | Path,
    out_dir: Path,
    dtype: torch.dtype,
    *,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a directory that transformers and vLLM load: config, safetensors, tokenizer, template, generation.

    Adapters are merged into the written weights; the live model is not changed. The directory appears whole,
    by a rename; one of that name is replaced.

    Args:
        model: The model, with or without adapters.
        chat_or_tokenizer_dir: The chat format whose tokenizer and template go with the model, or a directory
            to copy them from.
        out_dir: Where to write.
        dtype: Type of the written weights.
        state: Weights to write in place of the live model's, of that type and under their plain names.

    Raises:
        ModelError: If the directory cannot be written.
    """
    staging = out_dir.with_name(f".{out_dir.name}.staging-{os.getpid()}")
    replaced = out_dir.with_name(f".{out_dir.name}.replaced-{os.getpid()}")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        weights = merged_state_dict(model, dtype=dtype) if state is None else state
        save_clean(plain_model(model), weights, staging)
        _save_tokenizer(chat_or_tokenizer_dir, staging)
        if out_dir.exists():
            out_dir.rename(replaced)
        staging.rename(out_dir)
    except OSError as error:
        raise ModelError(
            f"cannot be written: {error}", where=str(out_dir), hint="free space or choose another directory"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def save_clean(model: PreTrainedModel, state: Mapping[str, Tensor], out_dir: Path) -> None:
    """Save given weights with a model's config and generation config, free of what the live model carries.

    A model of the same class is built without memory of its own and given the weights, so that adapters,
    quantisation and training switches of the live model leave no trace, and tied weights are written once.

    Args:
        model: The model whose class and configs are used; it is not changed.
        state: Plain parameter name → tensor, all of one floating-point type.
        out_dir: An existing directory.
    """
    config = copy.deepcopy(model.config)
    config.name_or_path = ""  # a path on the machine that wrote it is of no use to who reads it
    config.use_cache = True
    with torch.device("meta"):
        clean = type(model)(config)
    clean.load_state_dict(dict(state), strict=True, assign=True)
    clean.tie_weights()
    if model.can_generate():
        clean.generation_config = copy.deepcopy(model.generation_config)
    clean.save_pretrained(str(out_dir))


def _save_tokenizer(source: ChatFormat | Path, out_dir: Path) -> None:
    if not isinstance(source, Path):
        source.save(out_dir)
        return
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(
        str(source), trust_remote_code=False, local_files_only=True
    )
    tokenizer.save_pretrained(str(out_dir))
