"""How a run begins and goes on: its precision is settled once, and written down only when nothing stands against it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from gad_ray.auto import Rates
from gad_ray.checkpoint.store import CheckpointStore, RunPosition
from gad_ray.config import RunConfig, config_hash, load_config
from gad_ray.controller.checkpointing import read_position
from gad_ray.controller.run_setup import open_run
from gad_ray.errors import CheckpointError
from gad_ray.observability.run_dir import RunDirectory
from tests.unit.auto_machine import AMX, AVX2, have_rates


def asked_for(root: Path, *overrides: str) -> RunConfig:
    return load_config("quickstart", [f"output_dir={root}", *overrides])


def on(monkeypatch: pytest.MonkeyPatch, rates: Rates) -> None:
    """From here on, this is a machine with these rates."""
    have_rates(monkeypatch, rates)


def begin(root: Path, *overrides: str) -> RunDirectory:
    return open_run(asked_for(root, *overrides), None, check=read_position).directory


def save_checkpoint(directory: RunDirectory) -> None:
    """A checkpoint of the run as its ``config.yaml`` has it."""
    config = load_config(str(directory.config_yaml))
    store = CheckpointStore(directory.checkpoints, keep=2)
    staging = store.begin(3)
    (staging.path / "state").write_text("weights")
    position = RunPosition(
        stage="warmup",
        step=3,
        stage_step=3,
        policy_version=0,
        data={},
        answers={},
        metrics_bytes=0,
        config_hash=config_hash(config),
        pin=None,
    )
    store.commit(staging, position)


def test_a_run_writes_down_what_auto_came_to_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on(monkeypatch, AVX2)
    directory = begin(tmp_path)
    written = load_config(str(directory.config_yaml))
    assert written.policy.model.compute == written.critic.model.compute == "float32"
    assert written.rollout.precision == "float32"
    assert written.rollout.engine in ("vllm", "transformers")
    assert written.rollout.batch_sequences == 16
    assert written.policy.micro_batch_tokens == written.critic.micro_batch_tokens == 256
    told = json.loads(directory.versions_json.read_text())["choices"]
    assert "12 GFLOP/s in bfloat16, 120 in float32" in told


def test_a_slow_choice_is_warned_of_when_the_run_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on(monkeypatch, AVX2)
    with caplog.at_level(logging.WARNING, logger="gad_ray"):
        begin(tmp_path, "policy.model.compute=bfloat16")
    assert "policy.model.compute = bfloat16 is slow here" in caplog.text
    assert "set policy.model.compute=auto, or float32" in caplog.text


@pytest.mark.parametrize("resume", ["auto", "quickstart"])
def test_a_run_resumed_on_another_machine_goes_on_in_the_precision_it_began_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, resume: str
) -> None:
    on(monkeypatch, AMX)
    directory = begin(tmp_path)
    save_checkpoint(directory)
    on(monkeypatch, AVX2)
    opened = open_run(asked_for(tmp_path), resume, check=read_position)
    assert opened.directory == directory
    assert opened.checkpoint is not None
    assert opened.config.policy.model.compute == "bfloat16"
    assert load_config(str(directory.config_yaml)).policy.model.compute == "bfloat16"
    decided = [line for line in opened.choices if ".threads = " not in line]
    assert len(decided) == 7
    assert all("as the run began" in line for line in decided)


def test_another_precision_is_refused_and_leaves_the_runs_own_settings_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on(monkeypatch, AMX)
    directory = begin(tmp_path)
    save_checkpoint(directory)
    before = directory.config_yaml.read_text()
    with pytest.raises(CheckpointError, match="made with other settings"):
        open_run(asked_for(tmp_path, "policy.model.compute=float32"), "auto", check=read_position)
    assert directory.config_yaml.read_text() == before
    assert open_run(asked_for(tmp_path), "auto", check=read_position).checkpoint is not None


def test_a_run_that_ended_in_its_warm_start_keeps_the_precision_of_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on(monkeypatch, AMX)
    directory = begin(tmp_path)
    directory.warm_start.prepare(load_config(str(directory.config_yaml)))
    on(monkeypatch, AVX2)
    open_run(asked_for(tmp_path, "policy.model.compute=float32"), "auto", check=read_position)
    opened = open_run(asked_for(tmp_path), "auto", check=read_position)
    assert opened.checkpoint is None
    assert opened.config.policy.model.compute == "bfloat16"


def test_resuming_what_never_ran_starts_afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on(monkeypatch, AVX2)
    opened = open_run(asked_for(tmp_path), "auto", check=read_position)
    assert (opened.directory.name, opened.checkpoint) == ("quickstart", None)
    assert opened.config.rollout.precision == "float32"


def test_a_named_run_without_a_checkpoint_has_nothing_to_go_on_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on(monkeypatch, AVX2)
    begin(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        open_run(asked_for(tmp_path), "quickstart", check=read_position)
