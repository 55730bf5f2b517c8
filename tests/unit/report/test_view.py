from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from gad_ray.errors import ConfigError
from gad_ray.report.state import Condition
from gad_ray.report.view import Stage, find_view, load_view
from tests.unit.report.runs import (
    BEGUN,
    add_event,
    add_finding,
    add_records,
    add_summary,
    append,
    make_run,
    step_row,
)

SOON = BEGUN + 130.0
"""A few seconds after the twelfth step."""


def aged(root: Path) -> Path:
    """The run with its files as old as its steps say."""
    for path in root.iterdir():
        os.utime(path, (BEGUN, BEGUN))
    return root


def test_a_runs_curves_are_what_it_logged(tmp_path: Path) -> None:
    view = load_view(make_run(tmp_path / "run").root)
    assert view.name == "run"
    np.testing.assert_array_equal(view.steps, range(1, 13))
    diff = view.metrics["critic/score_diff"]
    np.testing.assert_allclose(diff.values, [1.0 + 0.1 * step for step in range(1, 13)])
    assert diff.last() == pytest.approx(2.2)
    np.testing.assert_array_equal(view.metrics["eval/d_acc"].steps, [4, 8, 12])
    assert view.stages == (
        Stage(name="warmup", first=1, last=4),
        Stage(name="adversarial", first=5, last=12),
    )
    assert view.notes == ()


def test_a_value_that_was_not_finite_is_a_gap_and_not_a_number(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=2)
    row = step_row(3, **{"critic/d_acc": None, "nonfinite": {"critic/d_acc": "nan"}})
    append(directory.metrics_jsonl, [row])
    series = load_view(directory.root).metrics["critic/d_acc"]
    assert series.steps.tolist() == [1, 2, 3]
    assert math.isnan(series.values[-1])
    assert series.last() == pytest.approx(0.5 + 0.4 * math.sin(2) ** 2)


def test_a_last_line_that_is_cut_short_is_left_out_and_told(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    content = directory.metrics_jsonl.read_bytes()
    directory.metrics_jsonl.write_bytes(content[:-40])
    view = load_view(directory.root)
    assert len(view.steps) == 11
    assert view.notes == ("metrics.jsonl: the last line is cut short and was left out",)


def test_foreign_lines_are_left_out_with_their_numbers(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=2)
    with directory.metrics_jsonl.open("ab") as file:
        file.write(b"not json\n[1, 2]\n\xff\xfe\n" + b'{"loss": 3.0}\n')
    append(directory.metrics_jsonl, [step_row(3, note="a word", flag=True)])
    view = load_view(directory.root)
    assert view.steps.tolist() == [1, 2, 3]
    assert not {"note", "flag"} & set(view.metrics)
    assert view.notes == (
        "metrics.jsonl: 3 lines are no JSON objects and were left out (line 3, 4, 5)",
        "metrics.jsonl: 1 lines without a step were left out",
    )


def test_a_step_that_was_played_again_counts_as_it_was_the_last_time(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=6)
    append(directory.metrics_jsonl, [step_row(step, **{"critic/d_acc": 0.1}) for step in (4, 5)])
    view = load_view(directory.root)
    assert view.steps.tolist() == [1, 2, 3, 4, 5]
    assert view.metrics["critic/d_acc"].values[-2:].tolist() == [0.1, 0.1]


def test_what_happened_in_steps_that_a_resumed_run_took_back_is_forgotten(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_finding(directory, 3)
    add_finding(directory, 8)
    add_event(directory, "resumed", after=9, step=5, checkpoint="step-000005")
    add_finding(directory, 9)
    view = load_view(directory.root)
    assert [event.step for event in view.findings] == [3, 9]
    assert [event.name for event in view.events] == ["health", "resumed", "health"]


@pytest.mark.parametrize("content", [None, "", '{"step": 1, "stage'])
def test_a_run_without_a_whole_step_says_so(tmp_path: Path, content: str | None) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    directory.metrics_jsonl.unlink()
    if content is not None:
        directory.metrics_jsonl.write_text(content)
    view = load_view(directory.root)
    assert len(view.steps) == 0
    assert view.stages == ()
    assert view.metrics == {}
    assert any("no step" in note for note in view.notes)


# -- how a run stands ---------------------------------------------------------------------------------


def test_a_run_with_its_account_has_finished(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_summary(directory)
    view = load_view(directory.root)
    assert view.state.condition is Condition.FINISHED
    assert view.summary is not None
    assert view.summary.rows[0].after == 1.0
    assert len(view.heldout) == 1


def test_a_finished_run_that_is_prolonged_is_going_again(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_summary(directory)
    aged(directory.root)
    assert load_view(directory.root, now=SOON).state.condition is Condition.GOING


def test_a_run_whose_last_step_is_fresh_is_going(tmp_path: Path) -> None:
    root = aged(make_run(tmp_path / "run").root)
    state = load_view(root, now=SOON).state
    assert (state.condition, state.text) == (
        Condition.GOING,
        "still going after 12 steps, as of this report",
    )


def test_a_run_that_was_killed_gives_no_sign_of_life(tmp_path: Path) -> None:
    root = aged(make_run(tmp_path / "run").root)
    state = load_view(root, now=SOON + 4 * 3600).state
    assert state.condition is Condition.SILENT
    assert "no sign of life for 4 hours" in state.text


def test_slow_steps_are_not_taken_for_silence(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    append(directory.metrics_jsonl, [step_row(step, time=BEGUN + 3600.0 * step) for step in (1, 2, 3)])
    root = aged(directory.root)
    assert load_view(root, now=BEGUN + 6 * 3600).state.condition is Condition.GOING
    assert load_view(root, now=BEGUN + 9 * 3600).state.condition is Condition.SILENT


def test_a_run_that_failed_before_its_first_step_tells_why(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    add_event(directory, "failed", after=0, error="critic-0 is gone: out of memory\n  → free some")
    state = load_view(directory.root).state
    assert state.condition is Condition.FAILED
    assert state.text == "failed before its first step: critic-0 is gone: out of memory"


def test_a_run_that_was_stopped_and_taken_up_again_is_going(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_event(directory, "stopped", after=12, step=12, signal=2)
    aged(directory.root)
    assert load_view(directory.root, now=SOON).state.condition is Condition.STOPPED
    add_event(directory, "resumed", after=12, step=12)
    assert load_view(directory.root, now=SOON).state.condition is Condition.GOING


def test_a_run_that_health_stopped_names_the_rules(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_event(directory, "stopped", after=12, step=12, rules=["length-collapse"])
    state = load_view(directory.root, now=SOON).state
    assert state.text.startswith("stopped by the health rules length-collapse after 12 steps")


# -- what is broken or not there ----------------------------------------------------------------------


def test_a_broken_account_is_a_note_and_the_rest_is_shown(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    directory.summary_json.write_text('{"format": 99}')
    directory.versions_json.write_text("{")
    view = load_view(directory.root)
    assert view.summary is None
    assert len(view.steps) == 12
    assert [note.split(" ")[0] for note in view.notes] == ["summary.json", "versions.json"]


def test_a_record_file_that_is_no_parquet_is_named_and_left_out(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_records(directory, 1)
    (directory.records / "step-000002.parquet").write_bytes(b"PAR1 and no more")
    records = load_view(directory.root).records
    assert len(records) == 2
    assert records.num_steps == 2
    assert len(records.notes) == 1
    assert "step-000002.parquet" in records.notes[0]


def test_metrics_alone_in_a_directory_are_enough(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    made.metrics_jsonl.rename(elsewhere / "metrics.jsonl")
    view = find_view(str(elsewhere))
    assert len(view.steps) == 12
    assert view.notes == ("config.yaml is not there",)


def test_a_run_is_found_by_name_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "first")
    assert find_view("first", tmp_path / "runs").name == "first"
    with pytest.raises(ConfigError, match="did you mean 'first'"):
        find_view("frist", tmp_path / "runs")
    with pytest.raises(ConfigError, match="no such directory"):
        load_view(tmp_path / "nowhere")
