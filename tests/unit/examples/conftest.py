"""A game small enough to play in seconds: tiny random models and a few rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.failures.bench import Bench
from examples.failures.settings import default_settings
from gad_ray.config.data import DataConfig
from gad_ray.config.models import ModelConfig
from gad_ray.config.run import AdversarialStage, RunConfig, StagesConfig, WarmupStage
from tests.game import make_rows, write_rows
from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    directory = tmp_path_factory.mktemp("demos")
    model = ModelConfig(model=str(make_tiny_model(directory / "model")), compute="float32")
    base = default_settings(seed=0)
    return base.model_copy(
        update={
            "prompts_per_step": 2,
            "data": DataConfig(
                train=(str(write_rows(directory / "data.jsonl", make_rows(20))),), heldout_prompts=6
            ),
            "policy": base.policy.model_copy(update={"model": model}),
            "critic": base.critic.model_copy(update={"model": model}),
            "rollout": base.rollout.model_copy(
                update={
                    "engine": "transformers",
                    "precision": "float32",
                    "max_response_tokens": 8,
                    "responses_per_prompt": 3,
                }
            ),
            "stages": StagesConfig(warmup=WarmupStage(steps=4), adversarial=AdversarialStage(steps=2)),
        }
    )


@pytest.fixture(scope="session")
def bench(tiny_settings: RunConfig) -> Iterator[Bench]:
    made = Bench(tiny_settings, tell=lambda _: None)
    yield made
    made.close()
