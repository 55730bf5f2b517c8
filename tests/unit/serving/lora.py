"""Small critics that are trained with LoRA, each with scores of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from gad_ray.learners.critic import CriticLearner
from tests.unit.builders import critic_config, critic_learner

MAX_TOKENS = 200


def make_lora_learner(model_dir: Path, *, seed: int, rank: int = 4) -> CriticLearner:
    lora = {"rank": rank, "alpha": 6.0, "target_modules": ("q_proj", "v_proj", "down_proj")}
    learner = critic_learner(critic_config(model_dir, model={"lora": lora}, max_tokens=MAX_TOKENS))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        learner.model.head.weight.mul_(20.0)
        for name, weight in learner.model.backbone.named_parameters():
            if ".lora_B." in name:  # a fresh adapter changes nothing
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return learner
