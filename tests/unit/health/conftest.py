from __future__ import annotations

from typing import Any

import pytest

from gad_ray.config import RunConfig
from gad_ray.config.load import validate


@pytest.fixture
def raw_config() -> dict[str, Any]:
    """A run's settings, with the critic's temperature at 2 and the first score regularisation."""
    return {
        "name": "game",
        "prompts_per_step": 4,
        "data": {"train": ["rows.jsonl"]},
        "policy": {"model": {"model": "student"}},
        "critic": {
            "model": {"model": "critic"},
            "loss": {
                "temperature": {"name": "fixed", "value": 2.0},
                "score_reg": {"threshold": 5.0, "weight": 0.001},
            },
            "updates_per_step": 4,
        },
        "rollout": {"responses_per_prompt": 2},
        "stages": {"warmup": {"steps": 2}, "adversarial": {"steps": 3}},
        "max_staleness": 1,
    }


@pytest.fixture
def config(raw_config: dict[str, Any]) -> RunConfig:
    return validate(raw_config, where="test")
