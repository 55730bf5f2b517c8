"""A small critic as it is served, with scores that differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import load_critic
from gad_ray.serving.application.loaded_critic import ServedCritic
from tests.unit.builders import critic_config, critic_learner

MAX_TOKENS = 200


def make_learner(model_dir: Path, *, seed: int = 0) -> CriticLearner:
    learner = critic_learner(critic_config(model_dir, max_tokens=MAX_TOKENS))
    with torch.no_grad():
        learner.model.head.weight.mul_(20.0 + seed)  # the fresh head's scores are close to 0
    return learner


@pytest.fixture(scope="session")
def critic_dir(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("served") / "critic"
    make_learner(tied_model).export(directory)
    return directory


@pytest.fixture(scope="session")
def critic(critic_dir: Path) -> CriticModel:
    return load_critic(critic_dir)


@pytest.fixture(scope="session")
def served(critic: CriticModel) -> ServedCritic:
    return ServedCritic(ValueHeadCritic(model=critic, step=12, temperature=2.0))
