"""A game takes a finished warm start only if it was made with the game's own settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gad_ray.config import RunConfig
from gad_ray.config.load import validate
from gad_ray.controller.fit import warm_start
from gad_ray.data.dataset import LoadedData
from gad_ray.errors import CheckpointError
from gad_ray.interrupt import StopRequest
from gad_ray.observability.run_dir import RunDirectory


def game(root: Path, **changed: Any) -> RunConfig:
    sections: dict[str, Any] = {
        "name": "game",
        "output_dir": str(root),
        "prompts_per_step": 4,
        "data": {"train": ["rows.jsonl"]},
        "policy": {"model": {"model": "student"}},
        "critic": {"model": {"model": "critic"}},
        "rollout": {"responses_per_prompt": 2},
        "stages": {"warm_start": "seqkd", "warmup": {"steps": 2}, "adversarial": {"steps": 3}},
        "fit": {"seqkd": {"steps": 5}},
    }
    return validate({**sections, **changed}, where="test")


@pytest.fixture
def made(tmp_path: Path) -> RunDirectory:
    """A run whose warm start came to its end."""
    directory = RunDirectory.create(game(tmp_path))
    directory.warm_start.prepare(game(tmp_path))
    directory.warm_start.summary_json.write_text("{}")
    return directory


def start(config: RunConfig, directory: RunDirectory) -> RunConfig | None:
    # Whoever fits again needs data and Ray: there are none.
    nothing: Any = None
    data: LoadedData = nothing
    stop: StopRequest = nothing
    return warm_start(config, "seqkd", directory=directory, data=data, stop=stop)


def test_a_finished_warm_start_is_the_games_model(made: RunDirectory, tmp_path: Path) -> None:
    started = start(game(tmp_path), made)
    assert started is not None
    assert started.policy.model.model == str(made.warm_start.exports / "policy")
    assert started.critic == game(tmp_path).critic


def test_settings_of_the_game_may_differ(made: RunDirectory, tmp_path: Path) -> None:
    stages = {"warm_start": "seqkd", "warmup": {"steps": 2}, "adversarial": {"steps": 30}}
    assert start(game(tmp_path, stages=stages), made) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"fit": {"seqkd": {"steps": 6}}},
        {"fit": {"seqkd": {"steps": 5, "optimizer": {"lr": 1e-3}}}},
        {"policy": {"model": {"model": "another student"}}},
        {"data": {"train": ["other.jsonl"]}},
    ],
    ids=["steps", "rate", "model", "data"],
)
def test_one_that_was_made_with_other_settings_is_refused(
    made: RunDirectory, tmp_path: Path, changed: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match="made with other settings") as refused:
        start(game(tmp_path, **changed), made)
    assert str(made.warm_start.config_yaml) in str(refused.value)
