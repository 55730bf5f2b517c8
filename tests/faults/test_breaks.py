"""One run broken off in every way there is, and resumed each time: it ends as if nothing had happened.

It is one that has much to remember: the gaps of its prompts, past responses, groups to refill.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from gad_ray.checkpoint.store import CheckpointStore
from gad_ray.checkpoint.tensors import load_state
from gad_ray.report.state import Condition
from gad_ray.report.view import load_view
from tests.game import REFILLED, SLOW_ROLLOUT, Game, Outcome, Running, read_metrics, steady

NAME = "broken"


def _killed(game: Game, actor: str, *, after_step: int, resume: str | None) -> Outcome:
    run = game.start(NAME, *REFILLED, resume=resume)
    run.wait_for_step(after_step)
    run.kill_actor(actor)
    return run.wait()


@pytest.fixture(scope="module")
def breaks(game: Game) -> Mapping[str, Outcome]:
    """How each part of the run ended, in order."""
    ends = {"rollout": _killed(game, "rollout-0", after_step=2, resume=None)}
    run = game.start(NAME, *REFILLED, resume="auto")
    run.wait_for_step(5)
    run.terminate()
    ends["SIGTERM"] = run.wait()
    ends["critic"] = _killed(game, "critic-0", after_step=7, resume="auto")
    run = game.start(NAME, *REFILLED, resume="auto", own_cluster=True)
    run.wait_for_step(9)
    run.interrupt()
    ends["SIGINT"] = run.wait()
    ends["policy"] = _killed(game, "policy-0", after_step=11, resume="auto")
    ends["end"] = game.play(NAME, *REFILLED, resume="auto")
    return ends


@pytest.mark.parametrize("actor", ["rollout", "critic", "policy"])
def test_a_killed_actor_ends_the_run_with_what_was_waited_for_and_its_log(
    breaks: Mapping[str, Outcome], actor: str
) -> None:
    outcome = breaks[actor]
    assert outcome.code == 1
    assert "an actor died during" in outcome.err
    assert f"last lines of {outcome.root / 'logs' / f'{actor}-0.log'}" in outcome.err
    assert "resume with --resume auto" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_the_run_with_its_own_exit_code_and_says_how_to_go_on(
    breaks: Mapping[str, Outcome], name: str, code: int
) -> None:
    outcome = breaks[name]
    assert outcome.code == code, outcome.err
    # Said when the signal comes, not when the step has ended.
    told = outcome.out.index(f"{name}: ending after the step that is under way, which is saved. To leave now")
    assert told < outcome.out.index(f"continue with --resume {outcome.root}")
    assert f"continue with --resume {outcome.root}" in outcome.out
    assert "Traceback" not in outcome.err


def test_a_run_broken_five_times_ends_with_the_metrics_of_an_unbroken_one(
    breaks: Mapping[str, Outcome], refilled: Outcome
) -> None:
    assert breaks["end"].code == 0, breaks["end"].err
    assert "resumed at step" in breaks["end"].out
    assert steady(breaks["end"].metrics) == steady(refilled.metrics)


def test_a_run_broken_five_times_exports_the_policy_of_an_unbroken_one(
    breaks: Mapping[str, Outcome], refilled: Outcome
) -> None:
    exported = Path("exports") / "policy" / "model.safetensors"
    assert (breaks["end"].root / exported).read_bytes() == (refilled.root / exported).read_bytes()


def test_a_run_broken_five_times_knows_the_same_of_prompts_and_past_responses(
    breaks: Mapping[str, Outcome], refilled: Outcome
) -> None:
    positions: list[dict[str, JsonValue]] = []
    pasts: list[bytes] = []
    for run in (breaks["end"], refilled):
        store = CheckpointStore(run.root / "checkpoints", keep=2)
        latest = store.latest()
        assert latest is not None
        positions.append(store.load_meta(latest).data)
        tensors, _ = load_state(latest / "critic" / "state")
        pasts.append(tensors["replay"].numpy().tobytes())
    assert positions[0] == positions[1]
    assert pasts[0] == pasts[1]


def test_tensorboard_and_records_of_the_broken_run_hold_each_step_once(breaks: Mapping[str, Outcome]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root = breaks["end"].root
    steps = [row["step"] for row in read_metrics(root)]
    board = EventAccumulator(str(root / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("critic/d_loss")] == steps
    assert len(list((root / "records").glob("step-*.parquet"))) == len(steps)


def test_the_report_of_the_broken_run_tells_of_every_break(breaks: Mapping[str, Outcome]) -> None:
    root = breaks["end"].root
    view = load_view(root)
    assert view.state.condition is Condition.FINISHED
    names = [event.name for event in view.events if event.name in {"failed", "stopped", "resumed"}]
    # The first loss came before there was a checkpoint, or after: then there was something to resume from.
    assert names.count("failed") == 3
    assert names.count("stopped") == 2
    assert names.count("resumed") >= 4
    page = (root / "report.html").read_text(encoding="utf-8")
    assert "an actor died during" in page
    assert "came to its end after 16 steps" in page


def test_a_run_resumed_with_other_settings_is_refused(breaks: Mapping[str, Outcome], game: Game) -> None:
    outcome = game.play(NAME, *REFILLED, "rollout.temperature=0.5", resume="auto")
    assert outcome.code == 1
    assert "was made with other settings" in outcome.err
    assert steady(outcome.metrics) == steady(breaks["end"].metrics)


def test_ctrl_c_again_and_again_leaves_a_long_rollout_at_once(game: Game) -> None:
    run = game.start("impatient", *SLOW_ROLLOUT, own_cluster=True)

    def is_generating() -> bool:
        process = run.actor("rollout-0")
        return process is not None and "generate" in " ".join(process.cmdline())

    run.wait_for(is_generating, "the first rollout")
    run.interrupt()
    answer = "SIGINT: ending after the step that is under way, which is saved. To leave now and lose that step: Ctrl-C"
    run.wait_for(lambda: run.said(answer), "the answer to the first signal, minutes before the step ends")
    run.interrupt_until_it_ends()
    outcome = run.wait()
    # The last signal may find nothing left but the interpreter: a shell calls both 130.
    assert outcome.code in {130, -signal.SIGINT}
    assert outcome.metrics == []
    assert "Traceback" not in outcome.err
    report = (outcome.root / "report.html").read_text(encoding="utf-8")
    assert "stopped by a signal before its first step" in report


@pytest.mark.parametrize(("stop", "code"), [(Running.interrupt, 130), (Running.terminate, 143)])
def test_a_signal_during_the_start_leaves_nothing_behind(
    game: Game, stop: Callable[[Running], None], code: int
) -> None:
    run = game.start(f"aborted-{code}", own_cluster=True)
    run.wait_for((run.root / "versions.json").exists, "the run's directory")
    stop(run)
    outcome = run.wait()
    assert outcome.code == code
    assert outcome.metrics == []
    assert not CheckpointStore(outcome.root / "checkpoints", keep=1).checkpoints()
    assert "Traceback" not in outcome.err
