"""The directory that a critic is exported to: it scores without the run that made it.

critic.json        what it is: step, temperature, pooling, fingerprint
head.safetensors   the value head
adapter/           the adapter alone, of a critic that was trained with LoRA
all else           the backbone, tokenizer and template as transformers writes them
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gad_ray.batch import Fingerprint
from gad_ray.errors import ModelError
from gad_ray.models.adapter import ADAPTER_FOLDER, save_adapter
from gad_ray.models.architecture import hidden_size_of
from gad_ray.models.chat import load_chat_format
from gad_ray.models.critic import CriticModel, ValueHead
from gad_ray.models.critic_meta import FORMAT, META, read_meta
from gad_ray.models.load import TORCH_DTYPES, is_adapted, load_backbone, plain_model, save_clean
from gad_ray.models.pooling import read_pooling

_HEAD = "head.safetensors"

_DAMAGES = (
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
"""What comes of files that are not what was exported, from whichever library reads them."""


def export_critic(
    critic: CriticModel,
    out_dir: Path,
    *,
    step: int,
    temperature: float,
    weights: Mapping[str, Tensor] | None = None,
) -> Fingerprint:
    """Write a directory that :func:`load_critic` reads: backbone, head, tokenizer, template, pooling, fingerprint.

    A critic that is trained with LoRA is written with its adapter merged, and beside that as the adapter alone.

    Args:
        critic: The critic.
        out_dir: Where to write; it appears whole, by a rename, and replaces one of that name.
        step: Optimiser steps that the critic has taken.
        temperature: τ of its loss, for probabilities of a comparison; the latest where it is adaptive.
        weights: The backbone's, as ``critic.state()`` gives them, from whoever holds them whole; its own when None.

    Raises:
        ModelError: If the directory cannot be written.
    """
    weights = critic.state() if weights is None else weights
    fingerprint = critic.fingerprint(weights=weights)
    meta = {
        "format": FORMAT,
        "step": step,
        "temperature": temperature,
        "pooling": critic.pooling.model_dump(mode="json"),
        "updates": critic.updates,
        "max_tokens": critic.encoder.max_tokens,
        "dtype": critic.dtype,
        "chat_template": critic.encoder.chat.template_text,
        "fingerprint": {**asdict(fingerprint), "digest": fingerprint.digest},
    }
    staging = out_dir.with_name(f".{out_dir.name}.staging-{os.getpid()}")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        save_clean(plain_model(cast("Any", critic.backbone)), weights, staging)
        critic.encoder.chat.save(staging)
        save_file({k: v.detach().cpu() for k, v in critic.head.state_dict().items()}, staging / _HEAD)
        (staging / META).write_text(json.dumps(meta, indent=2), encoding="utf-8")
        if is_adapted(cast("Any", critic.backbone)):
            # What is served on a backbone that others share.
            save_adapter(critic, staging / ADAPTER_FOLDER, meta)
        shutil.rmtree(out_dir, ignore_errors=True)
        staging.rename(out_dir)
    except OSError as error:
        raise ModelError(f"cannot be written: {error}", where=str(out_dir), hint="free space") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return fingerprint


def load_critic(directory: Path) -> CriticModel:
    """Load an exported critic and check that it is the one that was exported.

    Raises:
        ModelError: If the directory is no exported critic, or its content does not match its fingerprint.
    """
    meta = read_meta(directory)
    try:
        critic = _of_parts(directory, meta)
        recorded, found = meta["fingerprint"], asdict(critic.fingerprint())
        differing = [part for part, digest in found.items() if recorded.get(part) != digest]
    except _DAMAGES as error:
        raise ModelError(
            f"is a damaged export: {type(error).__name__}: {error}",
            where=str(directory),
            hint="export the critic again, or take a copy that was not changed",
        ) from error
    if differing:
        raise ModelError(
            f"its {' and '.join(differing)} are not those it was exported with",
            where=str(directory),
            hint="export the critic again, or take a copy that was not changed",
        )
    return critic.eval()


def _of_parts(directory: Path, meta: Mapping[str, Any]) -> CriticModel:
    backbone = load_backbone(directory, dtype=TORCH_DTYPES[meta["dtype"]])
    head = ValueHead(hidden_size_of(backbone), seed=0)
    head.load_state_dict(load_file(directory / _HEAD))
    return CriticModel(
        backbone,
        head,
        chat=load_chat_format(directory),
        pooling=read_pooling(meta["pooling"]),
        max_tokens=int(meta["max_tokens"]),
        dtype=meta["dtype"],
        updates=int(meta.get("updates", 0)),
    )
