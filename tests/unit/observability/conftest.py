from __future__ import annotations

from pathlib import Path

import pytest

from gad_ray.config import RunConfig
from gad_ray.config.load import validate


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A small run called ``game`` that writes under the test's directory."""
    raw = {
        "name": "game",
        "output_dir": str(tmp_path / "runs"),
        "prompts_per_step": 4,
        "data": {"train": ["rows.jsonl"]},
        "policy": {"model": {"model": "student"}},
        "critic": {"model": {"model": "critic"}},
        "rollout": {"responses_per_prompt": 2},
        "stages": {"warmup": {"steps": 2}, "adversarial": {"steps": 3}},
    }
    return validate(raw, where="test")
