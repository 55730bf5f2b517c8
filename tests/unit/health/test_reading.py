"""Logs of every kind, whole and damaged."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gad_ray.config import RunConfig, to_yaml
from gad_ray.errors import ConfigError, DataError
from gad_ray.health import diagnose
from gad_ray.health.facts import RunFacts, read_facts
from gad_ray.health.history import History
from gad_ray.health.reading import read_history
from gad_ray.observability.sinks import JsonlSink, TensorBoardSink

STEP: dict[str, Any] = {"critic/d_acc": 0.75, "critic/score_diff": 2.0, "critic/grad_norm": 1.0}


def write(path: Path, rows: Sequence[Mapping[str, Any]], end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + end, encoding="utf-8")
    return path


def notes(history: History) -> str:
    return "\n".join(diagnose(history).notes)


def own_run(root: Path, config: RunConfig, rows: int) -> Path:
    root.mkdir()
    (root / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    sink = JsonlSink(root / "metrics.jsonl")
    for step in range(1, rows + 1):
        sink.log(step=step, stage="warmup", metrics={**STEP, "timing_s/step": 2.0, "data/epoch": step / 40})
    sink.close()
    return root


# -- metrics files ----------------------------------------------------------------------------------------------


def test_a_metrics_file_is_read_by_registered_names(tmp_path: Path) -> None:
    history = read_history(
        str(write(tmp_path / "m.jsonl", [{"step": 3, "stage": "warmup", **STEP, "own": "x"}]))
    )
    assert history.kind == "jsonl"
    assert [(row.step, row.stage, row.metrics) for row in history.rows] == [(3, "warmup", STEP)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"step": 1, "d_acc": 0.7, "score_diff": 2.0}, {"critic/d_acc": 0.7, "critic/score_diff": 2.0}),
        ({"_step": 1, "critic": {"d_acc": 0.7}, "ok": True}, {"critic/d_acc": 0.7}),
        ({"step": 1, "data": {"critic/d_acc": 0.7, "training/epoch": 0}}, {"critic/d_acc": 0.7}),
        (
            {"step": 1, "critic/raw_score_diff": 9.0, "critic/score_diff": 1.0},
            {"critic/score_diff": 9.0},
        ),
        (
            {"step": 1, "critic/teacher_value_mean": 3.0, "critic/student_value_mean": 1.0},
            {"critic/teacher_score_mean": 3.0, "critic/student_score_mean": 1.0},
        ),
        # What a learning rate is of, nobody knows; a short name beside the full one says nothing new.
        ({"step": 1, "lr": 1.0, "d_acc": 0.1, "critic/d_acc": 0.7}, {"critic/d_acc": 0.7}),
    ],
)
def test_what_others_call_a_metric_is_understood(
    tmp_path: Path, row: dict[str, Any], expected: dict[str, float]
) -> None:
    history = read_history(str(write(tmp_path / "m.jsonl", [row])))
    assert history.rows[0].metrics == expected
    assert history.rows[0].step == 1


def test_what_was_read_under_another_name_is_said(tmp_path: Path) -> None:
    history = read_history(str(write(tmp_path / "m.jsonl", [{"step": 1, "actor/policy_loss": 0.1, **STEP}])))
    assert "actor/policy_loss → actor/pg_loss" in notes(history)


def test_values_that_are_not_finite_are_kept_as_such(tmp_path: Path) -> None:
    row = {"step": 1, **STEP, "critic/d_loss": None, "nonfinite": {"critic/d_loss": "nan"}}
    history = read_history(str(write(tmp_path / "m.jsonl", [row])))
    assert str(history.rows[0].metrics["critic/d_loss"]) == "nan"


def test_a_last_line_that_is_cut_off_is_left_out_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", [{"step": 1, **STEP}, {"step": 2, **STEP}])
    path.write_text(path.read_text()[:-20])
    history = read_history(str(path))
    assert [row.step for row in history.rows] == [1]
    assert "the last line is cut off" in notes(history)
    assert "could not be read" not in notes(history)


def test_a_last_line_without_an_end_that_is_whole_is_used(tmp_path: Path) -> None:
    history = read_history(
        str(write(tmp_path / "m.jsonl", [{"step": 1, **STEP}, {"step": 2, **STEP}], end=""))
    )
    assert [row.step for row in history.rows] == [1, 2]
    assert "cut off" not in notes(history)


def test_lines_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f"hello\n{json.dumps({'step': 1, **STEP})}\n[1, 2]\n")
    assert "2 lines could not be read and were left out, the first of them line 1" in notes(
        read_history(str(path))
    )


def test_steps_that_were_logged_again_count_once(tmp_path: Path) -> None:
    rows = [{"step": s, **STEP, "critic/d_acc": d} for s, d in ((1, 0.7), (2, 0.1), (2, 0.8), (3, 0.9))]
    history = read_history(str(write(tmp_path / "m.jsonl", rows)))
    assert [row.metrics["critic/d_acc"] for row in history.rows] == [0.7, 0.8, 0.9]
    assert "1 steps were logged more than once" in notes(history)


def test_stages_that_are_not_told_begin_where_the_policys_loss_does(tmp_path: Path) -> None:
    rows = [{"step": s, **STEP} | ({"actor/pg_loss": 0.1} if s > 2 else {}) for s in range(1, 5)]
    history = read_history(str(write(tmp_path / "m.jsonl", rows)))
    assert [row.stage for row in history.rows] == ["warmup", "warmup", "adversarial", "adversarial"]
    assert "policy loss" in notes(history)


def test_a_stage_that_nothing_tells_is_unknown_until_the_user_tells_it(tmp_path: Path) -> None:
    path = str(write(tmp_path / "m.jsonl", [{"step": 300, "critic/d_acc": 0.52}]))
    history = read_history(path)
    assert history.rows[0].stage == "unknown"
    assert [item.finding.rule for item in diagnose(history).fired] == ["critic-blind"]
    assert diagnose(read_history(path, stage="warmup")).fired == ()


def test_a_glimpse_without_step_numbers_is_judged_though_a_beginning_would_not_be(tmp_path: Path) -> None:
    row = {"stage": "warmup", "critic/score_diff": 0.1}
    glimpse = read_history(str(write(tmp_path / "glimpse.jsonl", [row])))
    beginning = read_history(str(write(tmp_path / "beginning.jsonl", [{"step": 1, **row}])))
    assert [item.finding.rule for item in diagnose(glimpse).fired] == ["scores-indistinct"]
    assert diagnose(beginning).fired == ()


# -- facts ------------------------------------------------------------------------------------------------------


def test_facts_beside_the_file_go_before_those_in_it(tmp_path: Path) -> None:
    rows = [{"facts": {"policy_lr": 1e-6, "advantage": "rank"}}, {"step": 1, **STEP}]
    path = write(tmp_path / "m.jsonl", rows)
    beside = tmp_path / "facts.json"
    beside.write_text('{"policy_lr": 5e-6}')
    facts = read_history(str(path), facts=read_facts(beside)).facts
    assert facts == RunFacts(policy_lr=5e-6, advantage="rank")


@pytest.mark.parametrize(
    ("content", "said"), [('{"policy_rl": 1}', "policy_rl"), ("[]", "object"), ("{", "not JSON")]
)
def test_facts_that_cannot_be_used_are_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "facts.json"
    path.write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        read_facts(path)
    assert caught.value.where == str(path)


# -- verl -------------------------------------------------------------------------------------------------------

VERL = """\
\x1b[36m(TaskRunner pid=3125)\x1b[0m {'actor_rollout_ref': {'actor': {'optim': {'lr': 1e-06}}}}
\x1b[36m(TaskRunner pid=3125)\x1b[0m step:0 - val-core/lmsys/reward/mean@1:0.5
(TaskRunner pid=3125, ip=10.0.0.7) step:1 - critic/d_acc:0.93 - critic/score_diff:np.float64(7.25) - critic/temperature:2.0 - timing_s/step:212.5
Training Progress:   0%|          | 1/750 [03:32<44:00:11, 212.50s/it]
Training Progress:   0%|  | 2/750 \x1b[36m(TaskRunner pid=3125)\x1b[0m step:2 - critic/d_acc:0.94 - critic/score_diff:-1.5e-1 - actor/pg_loss:nan - critic/temperature:2.0(WorkerDict pid=9) hello
(WorkerDict pid=9) timing/step:1.25 saved to global_step:9/actor
"""


def test_verls_console_log_is_read_whatever_stands_around_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.out"
    path.write_text(VERL)
    history = read_history(str(path))
    assert history.kind == "verl"
    assert [row.step for row in history.rows] == [1, 2]
    assert history.rows[0].metrics == {
        "critic/d_acc": 0.93,
        "critic/score_diff": 7.25,
        "critic/temperature": 2.0,
        "timing_s/step": 212.5,
    }
    second = dict(history.rows[1].metrics)
    assert str(second.pop("actor/pg_loss")) == "nan"
    assert second == {"critic/d_acc": 0.94, "critic/score_diff": -0.15, "critic/temperature": 2.0}


def test_what_verl_has_too_is_told_by_its_own_key(tmp_path: Path) -> None:
    path = tmp_path / "train.out"
    path.write_text("step:1 - actor/kl_loss:0.09 - actor/kl_coef:0.15 - actor/pg_loss:0.0003\n")
    told = notes(read_history(str(path)))
    assert "as verl calls them: policy.kl.coefficient = actor_rollout_ref.actor.kl_loss_coef" in told


def test_advice_on_a_foreign_log_starts_from_what_it_tells(tmp_path: Path) -> None:
    path = tmp_path / "train.out"
    path.write_text("step:1 - critic/d_acc:0.96 - critic/temperature:5.0 - critic/lr:0.0\n")
    (fired,) = diagnose(read_history(str(path))).fired
    assert fired.finding.overrides[0] == "critic.loss.temperature.value=7.0"


def test_a_verl_line_that_says_less_than_the_one_before_and_has_no_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "train.out"
    path.write_text("step:1 - critic/d_acc:0.93 - critic/score_diff:7.25\nstep:2 - critic/d_acc:0.9")
    history = read_history(str(path))
    assert [row.step for row in history.rows] == [1]
    assert "the last line is cut off" in notes(history)


# -- TensorBoard ------------------------------------------------------------------------------------------------


def board(path: Path, steps: int = 3) -> Path:
    sink = TensorBoardSink(path)
    for step in range(1, steps + 1):
        sink.log(step=step, stage="warmup", metrics={**STEP, "critic/d_acc": 0.5 + step / 8})
    sink.close()
    return path


def test_tensorboard_events_are_read_by_directory_and_by_file(tmp_path: Path) -> None:
    directory = board(tmp_path / "logs")
    (file,) = directory.glob("*tfevents*")
    for source in (tmp_path, directory, file):
        history = read_history(str(source))
        assert history.kind == "board"
        assert {row.step: row.metrics["critic/d_acc"] for row in history.rows} == {
            1: 0.625,
            2: 0.75,
            3: 0.875,
        }


def test_the_events_of_several_runs_are_not_mixed(tmp_path: Path) -> None:
    board(tmp_path / "a")
    board(tmp_path / "b")
    with pytest.raises(DataError, match="2 runs: a, b"):
        read_history(str(tmp_path))


def test_event_files_without_scalars_are_refused(tmp_path: Path) -> None:
    TensorBoardSink(tmp_path).close()
    with pytest.raises(DataError, match="no scalars"):
        read_history(str(tmp_path))


def test_the_events_of_our_own_run_find_its_configuration(tmp_path: Path, config: RunConfig) -> None:
    root = own_run(tmp_path / "game", config, rows=2)
    board(root / "tensorboard")
    assert read_history(str(root / "tensorboard")).config == config


# -- runs -------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_name_by_directory_and_by_its_metrics(tmp_path: Path, config: RunConfig) -> None:
    root = own_run(tmp_path / "game", config, rows=3)
    for source in ("game", str(root), str(root / "metrics.jsonl")):
        history = read_history(source, output_dir=tmp_path)
        assert history.kind == "run"
        assert history.config == config
        assert len(history.rows) == 3
        assert history.facts.policy_lr == config.policy.optimizer.lr
        assert history.facts.same_critic is True
        assert history.facts.steps_per_epoch == 40


def test_a_run_that_is_still_going_is_judged_so_far_and_said_so(tmp_path: Path, config: RunConfig) -> None:
    history = read_history(str(own_run(tmp_path / "game", config, rows=8)))
    assert "the run is still going: judged so far, up to step 8" in notes(history)
    assert diagnose(history).fired == ()


def test_a_run_that_has_been_silent_for_long_is_stalled(tmp_path: Path, config: RunConfig) -> None:
    root = own_run(tmp_path / "game", config, rows=8)
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    write(root / "metrics.jsonl", [row | {"time": time.time() - 1000.0} for row in rows])
    history = read_history(str(root))
    assert "broken off after step 8" in notes(history)
    (fired,) = diagnose(history).fired
    assert (fired.finding.rule, fired.steps, fired.lasting) == ("stalled", (8,), True)


def test_a_run_that_was_stopped_or_has_finished_waits_for_nothing(tmp_path: Path, config: RunConfig) -> None:
    root = own_run(tmp_path / "game", config, rows=8)
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    write(root / "metrics.jsonl", [row | {"time": time.time() - 1000.0} for row in rows])
    (root / "events.jsonl").write_text('{"event": "health"}\n{"event": "stopped", "step": 8}\n')
    stopped = read_history(str(root))
    assert "stopped at step 8" in notes(stopped)
    (root / "summary.json").write_text("{}")
    os.utime(root / "summary.json", (time.time() + 10, time.time() + 10))
    finished = read_history(str(root))
    assert diagnose(stopped).fired == diagnose(finished).fired == ()
    assert notes(finished) == ""


def test_a_run_that_failed_is_told_with_its_error(tmp_path: Path, config: RunConfig) -> None:
    root = own_run(tmp_path / "game", config, rows=8)
    (root / "events.jsonl").write_text(
        '{"event": "failed", "error": "the critic is lost\\nits log says more"}\n'
    )
    failed = read_history(str(root))
    assert notes(failed) == "the run failed after step 8: the critic is lost; judged up to there"
    assert diagnose(failed).fired == ()
    (root / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="no step: it failed at step 0: the critic is lost"):
        read_history(str(root))


@pytest.mark.parametrize("metrics", [None, ""])
def test_a_run_that_died_at_step_0_is_told_with_its_newest_log(
    tmp_path: Path, config: RunConfig, metrics: str | None
) -> None:
    root = own_run(tmp_path / "game", config, rows=0)
    (root / "metrics.jsonl").unlink()
    if metrics is not None:
        (root / "metrics.jsonl").write_text(metrics)
    (root / "logs").mkdir()
    (root / "logs" / "policy-0.log").write_text("out of memory")
    with pytest.raises(DataError, match="died at step 0") as caught:
        read_history(str(root))
    assert caught.value.where == str(root)
    assert str(root / "logs" / "policy-0.log") in str(caught.value.hint)


def test_a_configuration_of_another_version_leaves_the_metrics_to_be_judged(
    tmp_path: Path, config: RunConfig
) -> None:
    root = own_run(tmp_path / "game", config, rows=8)
    (root / "config.yaml").write_text("name: game\nno_such_setting: 1\n")
    history = read_history(str(root))
    assert history.config is None
    assert "configuration is not known" in notes(history)


# -- what cannot be judged --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"\x7fELF\0\0\0", "binary file"),
        ('{"step": 1}'.encode("utf-16"), "binary file"),
        (b"# A page\nof text\n", "none of its 2 lines tells of a step: '# A page'"),
        (b'{\n "critic/d_acc": 0.7\n}\n', "none of its 3 lines"),
        (b'{"step": 1, "loss": 0.3, "accuracy": 0.9}\n', "it has: loss, accuracy"),
    ],
)
def test_a_file_that_cannot_be_judged_is_told_with_what_was_found(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_history(str(path))
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_a_directory_that_is_neither_run_nor_board_is_told_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"it holds notes\.txt"):
        read_history(str(tmp_path))


def test_what_is_not_there_is_told_as_a_file_or_as_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_history(str(tmp_path / "metrics.jsonl"))
    with pytest.raises(ConfigError, match="no run is called 'gmae'"):
        read_history("gmae", output_dir=tmp_path)
