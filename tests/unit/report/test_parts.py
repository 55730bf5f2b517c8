"""Scores, samples, timing, settings and words: what the page shows besides curves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gad_ray.report.samples as samples_module
from gad_ray.report.overview import final_figures, other_events, tiles, verdicts
from gad_ray.report.recorded import MAX_SAMPLES, MAX_STEPS, read_records, spread
from gad_ray.report.samples import pieces, sample_entries
from gad_ray.report.scores import length_charts, score_charts
from gad_ray.report.settings import differences, read_settings
from gad_ray.report.timing import split_times, stage_times, timing_chart
from gad_ray.report.view import load_view
from tests.unit.report.runs import (
    CHINESE,
    add_event,
    add_finding,
    add_records,
    add_summary,
    append,
    make_run,
    step_row,
    whole_run,
)

# -- scores -------------------------------------------------------------------------------------------


def test_quantiles_are_taken_of_each_side_and_of_their_difference(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_records(directory, 3, students=[(float(i), 5) for i in range(5)], teacher=10.0)
    add_records(directory, 7, students=[(1.0, 5)], teacher=2.0)
    both, gap = score_charts(read_records(directory.records))
    teacher, student = both["lines"]
    assert (student["x"], student["y"]) == ([3, 7], [2.0, 1.0])
    assert teacher["y"] == [10.0, 2.0]
    outer, inner = both["areas"][2:]
    assert (outer["low"], outer["high"]) == ([0.2, 1.0], [3.8, 1.0])
    assert (inner["low"], inner["high"]) == ([1.0, 1.0], [3.0, 1.0])
    assert gap["lines"][0]["y"] == [8.0, 1.0]


def test_length_within_a_group_is_told_apart_from_length_over_all_prompts(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    # Within each step longer answers score lower, but the second prompt has long answers and high scores.
    add_records(directory, 1, students=[(0.0, 10), (1.0, 8)])
    add_records(directory, 2, students=[(10.0, 30), (11.0, 28)])
    over_all, within = length_charts(read_records(directory.records))
    assert over_all["caption"].startswith("Correlation +0.9")
    assert within["caption"].startswith("Correlation −1.00")
    assert within["x"] == [1.0, -1.0, 1.0, -1.0]
    assert within["y"] == [-0.5, 0.5, -0.5, 0.5]
    assert over_all["hollow"] == [1, 0, 1, 0]


def test_lengths_that_are_all_the_same_have_no_correlation(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_records(directory, 1, students=[(0.0, 10), (1.0, 10)])
    assert length_charts(read_records(directory.records))[0]["caption"].startswith("No correlation")


def test_without_records_there_are_no_distributions(tmp_path: Path) -> None:
    records = read_records(make_run(tmp_path / "run").records)
    assert (score_charts(records), length_charts(records)) == ([], [])
    assert len(read_records(tmp_path / "nowhere")) == 0


# -- samples ------------------------------------------------------------------------------------------


def test_the_steps_read_and_the_rows_shown_are_bounded_and_spread(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    first = add_records(directory, 1, students=[(float(i), 5) for i in range(8)])
    content = first.read_bytes()
    for step in range(2, 431):
        (directory.records / f"step-{step:06d}.parquet").write_bytes(content)
    records = read_records(directory.records)
    assert records.num_steps == 430
    assert len(np.unique(records.steps)) == MAX_STEPS
    assert (records.steps[0], records.steps[-1]) == (1, 430)
    assert len(records.samples) == MAX_SAMPLES
    shown = {row["student_score"] for row in records.samples}
    assert len(shown) == 8, "not the same row of every step"


def test_rows_with_values_of_tokens_are_shown_first(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    content = add_records(directory, 1, students=[(float(i), 5) for i in range(8)], values=True).read_bytes()
    for step in range(2, 301):
        (directory.records / f"step-{step:06d}.parquet").write_bytes(content)
    records = read_records(directory.records)
    assert len({row["step"] for row in records.samples if row["student_values"] is not None}) == MAX_STEPS


def test_an_entry_of_the_browser_has_prompt_texts_scores_and_values(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_records(directory, 5, values=True)
    add_summary(directory, text="Why?")
    first, second, held_out = sample_entries(load_view(directory.root))
    assert (second["source"], second["step"], second["id"]) == ("training", 5, "a")
    assert second["prompt"] == [
        {"role": "system", "content": "Kurz."},
        {"role": "user", "content": CHINESE},
    ]
    teacher, student = second["sides"]
    assert (teacher["text"], teacher["score"], student["score"], second["gap"]) == ("天空。", 1.0, -0.5, 1.5)
    assert teacher["pieces"] == [["天", 1.0], ["空", 2.0], ["。", 0.0]]
    assert student["pieces"] == [["答", -1.0], ["案", 0.0]]
    assert "pieces" not in first["sides"][0]
    assert second["details"]["policy version"] == 3
    assert second["details"]["ended"] == "by itself"
    assert first["details"]["ended"] == "cut at the limit"
    assert [side["label"] for side in held_out["sides"]] == ["teacher", "student before", "student after"]
    assert held_out["gap"] == 1.0


def test_the_answers_at_each_evaluation_can_be_looked_at(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_records(directory, 1)
    for step in (4, 8):
        add_records(directory, step, into=directory.eval_current)
    view = load_view(directory.root)
    entries = sample_entries(view)
    assert [(e["source"], e["step"]) for e in entries[::2]] == [
        ("training", 1),
        ("evaluation", 4),
        ("evaluation", 8),
    ]
    assert len(view.records) == 2, "they are no part of the distributions"


def test_tokens_of_one_character_are_one_piece_with_their_mean() -> None:
    assert pieces("龍 ok", [1, 1, 1, 4], [3.0, 0.0, 0.0, 5.0]) == [["龍", 1.0], [" ok", 5.0]]


@pytest.mark.parametrize(
    ("text", "ends", "values", "wanted"),
    [
        ("abc", [2], [1.0], [["ab", 1.0], ["c", None]]),
        ("", [], [], []),
        ("ab", [0, 2], [7.0, 1.0], [["a", 7.0], ["b", 1.0]]),
        ("ab", [1, 9], [7.0, 1.0], [["a", 7.0], ["b", None]]),
    ],
)
def test_pieces_are_the_whole_text(text: str, ends: list[int], values: list[float], wanted: list) -> None:
    found = pieces(text, ends, values)
    assert found == wanted
    assert "".join(piece for piece, _ in found) == text


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_records(directory, 1, response="x" * 10_000)
    student = sample_entries(load_view(directory.root))[0]["sides"][1]["text"]
    assert len(student) < 6100
    assert student.endswith("… [4000 more characters]")


def test_all_texts_together_are_bounded_and_cut_all_over_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_run(tmp_path / "run")
    for step in range(1, 33):
        add_records(directory, step, response="x" * 1000)
    view = load_view(directory.root)
    monkeypatch.setattr(samples_module, "MAX_CHARACTERS", 20_000)
    entries = sample_entries(view)
    assert 15 <= len(entries) < 20
    assert entries[0]["step"] < 4
    assert entries[-1]["step"] > 28
    assert [entry["step"] for entry in entries] == sorted(entry["step"] for entry in entries)


def test_spread_takes_both_ends() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(100, 3) == [0, 50, 99]
    assert spread(0, 3) == []


# -- timing -------------------------------------------------------------------------------------------


def test_the_parts_of_a_step_and_what_is_left_make_the_whole(tmp_path: Path) -> None:
    view = load_view(make_run(tmp_path / "run").root)
    split = split_times(view)
    assert split is not None
    assert split.parts == ("rollout", "score", "eval", "other")
    np.testing.assert_allclose(split.seconds.sum(axis=0), 10.0)
    warmup, adversarial = stage_times(view, split)
    assert (warmup.stage, warmup.num_steps, warmup.total) == ("warmup", 4, 40.0)
    assert warmup.seconds == (24.0, 12.0, 1.0, 3.0)
    assert adversarial.shares == pytest.approx((0.6, 0.3, 0.025, 0.075))


def test_parts_that_overlap_leave_nothing_over(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    append(directory.metrics_jsonl, [step_row(1, **{"timing_s/update_actor": 8.0, "timing_s/new_part": 1.0})])
    split = split_times(load_view(directory.root))
    assert split is not None
    assert split.parts == ("rollout", "score", "update_actor", "new_part", "other")
    assert split.seconds[:, 0].tolist() == [6.0, 3.0, 8.0, 1.0, 0.0]


def test_bars_of_a_long_run_are_means(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    rows = [step_row(step, **{"timing_s/rollout": float(step % 2)}) for step in range(1, 241)]
    append(directory.metrics_jsonl, rows)
    split = split_times(load_view(directory.root))
    assert split is not None
    chart = timing_chart(split)
    assert len(chart["first"]) == 120
    assert (chart["first"][0], chart["last"][0]) == (1, 2)
    assert set(chart["y"][0]) == {0.5}


def test_a_run_without_times_has_no_split(tmp_path: Path) -> None:
    assert split_times(load_view(make_run(tmp_path / "run", steps=0).root)) is None


# -- settings -----------------------------------------------------------------------------------------


def test_settings_that_differ_from_their_defaults_are_marked(tmp_path: Path) -> None:
    directory = make_run(
        tmp_path / "run",
        rollout={"responses_per_prompt": 2, "temperature": 0.6},
        critic={"model": {"model": "critic"}, "pooling": {"name": "last"}},
    )
    settings = read_settings(directory.config_yaml).by_key()
    temperature = settings["rollout.temperature"]
    assert temperature.changed
    assert temperature.value == "0.6"
    assert temperature.default != "0.6"
    assert settings["critic.pooling.name"].changed
    assert (settings["critic.pooling.name"].value, settings["critic.pooling.name"].default) == (
        "last",
        "mean",
    )
    assert not settings["rollout.top_p"].changed
    assert settings["prompts_per_step"].default is None, "it must be given, so it differs from nothing"
    assert not settings["prompts_per_step"].changed
    assert settings["records.token_values"].help.startswith("Responses of a recorded step")


def test_settings_of_another_version_stand_without_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: old\ncritic: {flavour: sweet, levels: [1, 2]}\n")
    settings = read_settings(path)
    assert {e.key: e.value for e in settings.entries} == {
        "name": "old",
        "critic.flavour": "sweet",
        "critic.levels": "[1, 2]",
    }
    assert "another version" in settings.notes[0]


@pytest.mark.parametrize("content", ["a: [", "- 1", None])
def test_settings_that_cannot_be_read_are_a_note(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    settings = read_settings(path)
    assert settings.entries == ()
    assert len(settings.notes) == 1


def test_only_what_differs_between_runs_is_told(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", seed=1)
    two = make_run(tmp_path / "two", seed=2)
    found = differences({d.name: read_settings(d.config_yaml) for d in (one, two)})
    assert found == (("seed", ("1", "2")),)


# -- words --------------------------------------------------------------------------------------------


def test_the_run_at_a_glance(tmp_path: Path) -> None:
    view = load_view(whole_run(tmp_path / "run").root)
    assert tiles(view) == [
        ("steps", "12 (4 warmup, 8 adversarial)"),
        ("in steps", "2 min 00 s"),
        ("median step", "10.0 s"),
        ("peak memory", "3.5 GiB"),
        ("health findings", "1"),
    ]


def test_a_rule_that_fires_again_is_one_verdict_and_the_critical_one_comes_first(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_finding(directory, 2)
    add_finding(directory, 4)
    add_finding(directory, 6, rule="score-collapse", severity="critical", stage="adversarial", advice=[])
    critical, warning = verdicts(load_view(directory.root).findings)
    assert (critical.rule, critical.advice) == ("score-collapse", ())
    assert (warning.where, warning.times) == ("warmup, from step 2, 4", 2)
    assert warning.evidence == "d_acc 0.93, response length 38.5"
    assert warning.advice == ("critic.loss.temperature.value=5.0",)


def test_what_else_happened_is_told_with_its_step_or_time(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_event(directory, "workers_lost", after=8, step=8, resumed_at=6, restart=1)
    add_event(directory, "failed", after=9, error="gone\n  → free some")
    assert other_events(load_view(directory.root)) == [
        ("step 8", "workers lost", "resumed_at 6, restart 1"),
        ("2023-11-14 22:14:51 UTC", "failed", "gone\n  → free some"),
    ]


def test_a_finding_of_another_version_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    directory.events_jsonl.write_text(
        json.dumps({"event": "health", "rule": "strange", "values": [1]}) + "\n"
    )
    (verdict,) = verdicts(load_view(directory.root).findings)
    assert (verdict.rule, verdict.severity, verdict.evidence) == ("strange", "warning", "")


def test_final_figures_of_runs_stand_side_by_side(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", steps=6)
    add_summary(one)
    rows = dict(final_figures([load_view(one.root), load_view(two.root)]))
    assert rows["steps"] == ["12 (4 warmup, 8 adversarial)", "6 (4 warmup, 2 adversarial)"]
    # The teacher's figure is another in every run: it is no part of the label.
    assert rows["reward of the student (last critic), before → after"] == ["0.500 → 1.000", "–"]
    assert rows["critic/score_diff, mean of the last 5 values"] == ["2", "1.4"]
    assert rows["eval/d_acc, the last value"] == ["0.8", "0.8"]
