"""The package as a library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gad_ray
from gad_ray.config import RunConfig
from gad_ray.config.models import ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.errors import ConfigError
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic
from tests.unit.builders import PROMPTS, TEACHER, pair


def test_what_is_offered_is_there_and_typed() -> None:
    assert all(callable(getattr(gad_ray, name)) for name in gad_ray.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        getattr(gad_ray, "trian")  # noqa: B009


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, gad_ray; assert not {'torch', 'ray', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_configuration_is_checked() -> None:
    config = gad_ray.configure("quickstart", "seed=7")
    assert isinstance(config, RunConfig)
    assert config.seed == 7
    with pytest.raises(ConfigError, match="sede"):
        gad_ray.configure("quickstart", "sede=7")


def test_rows_are_scored_as_the_critic_scores_them(tied_model: Path, tmp_path: Path) -> None:
    config = ModelConfig(model=str(tied_model), compute="float32")
    critic = CriticModel.build(config, pooling=MeanPooling(), max_tokens=512, seed=0)
    export_critic(critic, tmp_path / "critic", step=0, temperature=1.0)
    rows = [{"prompt": PROMPTS[0], "response": text} for text in TEACHER]
    scored = gad_ray.score(tmp_path / "critic", rows)
    wanted = critic.score([pair(PROMPTS[0], text) for text in TEACHER], micro_batch_tokens=4096)
    np.testing.assert_allclose(np.asarray([row["score"] for row in scored], dtype=float), wanted, atol=1e-5)
    assert [row["response"] for row in scored] == list(TEACHER)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: gad_ray.configure("quickstart", {"seed": 1}), "is no override"),  # type: ignore[arg-type]
        (lambda: gad_ray.train("quickstart"), "'quickstart' is no configuration"),  # type: ignore[arg-type]
        (lambda: gad_ray.train(gad_ray.configure("quickstart"), resume=True), "is no run to resume"),  # type: ignore[arg-type]
        (lambda: gad_ray.score(None, []), "None is no critic"),  # type: ignore[arg-type]
        (lambda: gad_ray.score("critic", ["x"]), "'x' is no row"),  # type: ignore[list-item]
    ],
)
def test_what_is_none_of_what_is_asked_for_is_refused(call: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        call()
