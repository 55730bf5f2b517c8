"""An offline fit whose workers are killed and whose driver is stopped ends with the very weights of an unbroken one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gad_ray.checkpoint.store import CheckpointStore
from tests.game import Game, Outcome, Running, steady

# Each step long enough to be met in its course: one forward pass for every row.
STEPS = 28
SETTINGS = (
    f"fit.seqkd.steps={STEPS}",
    "fit.seqkd.prompts_per_step=16",
    "fit.checkpoint_every=5",
    "policy.micro_batch_tokens=1",
    "data.heldout_prompts=0",
)


@pytest.fixture(scope="module")
def unbroken(game: Game) -> Outcome:
    return game.play("steady", *SETTINGS, fit="seqkd")


def _events(root: Path) -> list[dict[str, Any]]:
    path = root / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _restarts(run: Running) -> list[dict[str, Any]]:
    return [event for event in _events(run.root) if event["event"] == "workers_lost"]


@pytest.fixture(scope="module")
def breaks(game: Game) -> Mapping[str, Outcome]:
    """How each part of the fit ended, in order."""
    run = game.start("shaken", *SETTINGS, "fit.max_failures=0", fit="seqkd")
    run.wait_for_step(3)
    run.kill_actor("fit-0")
    ends = {"killed for good": run.wait()}
    run = game.start("shaken", *SETTINGS, fit="seqkd", resume="auto", own_cluster=True)
    run.wait_for_step(8)
    run.kill_actor("fit-0")
    run.wait_for(lambda: _restarts(run), "the restart of the workers")
    run.wait_for_step(14)
    run.terminate()
    ends["SIGTERM"] = run.wait()
    ends["end"] = game.play("shaken", *SETTINGS, fit="seqkd", resume="auto")
    return ends


def test_a_worker_lost_more_often_than_allowed_ends_the_fit_with_its_log(
    breaks: Mapping[str, Outcome],
) -> None:
    outcome = breaks["killed for good"]
    assert outcome.code == 1
    assert "the workers of the fit were lost more than fit.max_failures = 0 times" in outcome.err
    assert f"last lines of {outcome.root / 'logs' / 'fit-0.log'}" in outcome.err
    assert "resume with --resume auto" in outcome.err


def test_lost_workers_go_on_from_the_last_checkpoint_within_the_run(breaks: Mapping[str, Outcome]) -> None:
    outcome = breaks["SIGTERM"]
    (event,) = [event for event in _events(outcome.root) if event["event"] == "workers_lost"]
    assert event["step"] >= 8
    assert event["resumed_at"] % 5 == 0
    assert 0 <= event["step"] - event["resumed_at"] <= 5
    assert f"started anew at step {event['resumed_at']} (restart 1 of at most 3)" in outcome.out


def test_a_stopped_fit_saves_its_step_and_says_how_to_go_on(breaks: Mapping[str, Outcome]) -> None:
    outcome = breaks["SIGTERM"]
    assert outcome.code == 143, outcome.err
    assert f"continue with --resume {outcome.root}" in outcome.out
    assert "Traceback" not in outcome.err


def test_the_broken_fit_ends_with_the_metrics_and_the_weights_of_the_unbroken_one(
    breaks: Mapping[str, Outcome], unbroken: Outcome
) -> None:
    end = breaks["end"]
    assert end.code == 0, end.err
    assert unbroken.code == 0, unbroken.err
    assert [row["step"] for row in end.metrics] == list(range(1, STEPS + 1))
    assert steady(end.metrics) == steady(unbroken.metrics)
    exported = Path("exports") / "policy" / "model.safetensors"
    assert (end.root / exported).read_bytes() == (unbroken.root / exported).read_bytes()


def test_nothing_of_ray_train_is_left_and_the_checkpoints_are_the_runs_own(
    breaks: Mapping[str, Outcome],
) -> None:
    root = breaks["end"].root
    assert not (root / "ray-train").exists()
    store = CheckpointStore(root / "checkpoints", keep=2)
    for path in store.checkpoints():
        store.verify(path)
    assert store.checkpoints()[-1].name == f"step-{STEPS:06d}"
    kinds = {
        path.suffix or path.name for path in root.rglob("*") if path.is_file() and "checkpoints" in path.parts
    }
    assert kinds <= {".json", "state", "rng"}


def test_a_fit_resumed_with_other_settings_is_refused(breaks: Mapping[str, Outcome], game: Game) -> None:
    outcome = game.play("shaken", *SETTINGS, "fit.seqkd.optimizer.lr=0.1", fit="seqkd", resume="auto")
    assert outcome.code == 1
    assert "was made with other settings" in outcome.err
    assert steady(outcome.metrics) == steady(breaks["end"].metrics)


def test_ctrl_c_while_the_workers_start_leaves_at_once_and_nothing_behind(game: Game) -> None:
    run = game.start("hasty", *SETTINGS, fit="seqkd", own_cluster=True)
    run.wait_for((run.root / "logs" / "fit-0.log").exists, "the worker")
    run.interrupt()
    outcome = run.wait()
    assert outcome.code == 130
    assert not CheckpointStore(outcome.root / "checkpoints", keep=1).checkpoints()
    assert not (outcome.root / "ray-train").exists()
    assert "Traceback" not in outcome.err
