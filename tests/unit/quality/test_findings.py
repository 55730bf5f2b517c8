"""Every finding: silent on clean rows, and named with its rows where its defect is put into them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gad_ray.config import load_config
from gad_ray.findings import Severity
from gad_ray.quality.report import make_report
from gad_ray.quality.rules import RULES
from gad_ray.quality.settings import ReportSettings
from gad_ray.quality.tables import tables_of
from tests.unit.quality.rows import Row, answer, clean_rows, findings_of, report_of, sentence, write

Defect = Callable[[Row, int], None]


def put(field: str, change: Callable[[str, int], str]) -> Defect:
    def apply(row: Row, index: int) -> None:
        row[field] = change(row[field], index)

    return apply


def with_defect(defect: Defect, *, every: int = 6, students: bool = False) -> list[Row]:
    rows = clean_rows(students=students)
    for i, row in enumerate(rows):
        if i % every == 0:
            defect(row, i)
    return rows


def set_fields(**fields: Any) -> Defect:
    return lambda row, i: row.update(fields)


REFUSAL = "I am sorry, but as a language model I cannot help with that request."

TEXT_DEFECTS: dict[str, tuple[str, Defect]] = {
    "mojibake": ("unusable-rows", put("teacher_response", lambda t, i: t + " It’s fine".encode().decode("cp1252"))),
    "control character": ("unusable-rows", put("teacher_response", lambda t, i: f"{t}\x07")),
    "no teacher": ("unusable-rows", set_fields(teacher_response=None)),
    "boilerplate": ("shared-answers", set_fields(teacher_response=REFUSAL)),
    "chat template": ("template-in-answers", put("teacher_response", lambda t, i: f"{t}<|im_end|>")),
    "end of sequence": ("template-in-answers", put("teacher_response", lambda t, i: f"{t}</s>")),
    "played user": ("turns-in-answers", put("teacher_response", lambda t, i: f"{t}\nHuman: and what then?")),
    "rendered prompt": ("template-in-prompts", put("content", lambda t, i: f"<|im_start|>user\n{t}<|im_end|>")),
    "cut sentence": ("truncated-answers", put("teacher_response", lambda t, i: t + " " + sentence(random.Random(i), low=9)[:-2])),
    "open fence": ("truncated-answers", put("teacher_response", lambda t, i: f"{t}\n```python\nx = 1\n")),
    "said to be cut": ("truncated-answers", set_fields(finish_reason="length")),
    "said in meta": ("truncated-answers", set_fields(meta={"finish_reason": "length"})),
    "another script": ("other-script", set_fields(teacher_response="天空是蓝色的，因为空气散射蓝光比红光多。")),
    "zero width": ("invisible-characters", put("teacher_response", lambda t, i: t.replace(" ", " \u200b", 1))),
    "direction": ("invisible-characters", put("content", lambda t, i: f"\u202e{t}")),
    "loop": ("repetitive-answers", set_fields(teacher_response="and so it goes on again. " * 30)),
    "echo": ("echoed-prompts", lambda row, i: row.update(teacher_response=f"{row['content']} {row['teacher_response']}")),
    "timestamp": ("timestamps", put("teacher_response", lambda t, i: f"[00:12] {t}")),
}  # fmt: skip


def test_nothing_is_found_in_clean_rows_with_both_sides(tmp_path: Path):
    report = report_of(tmp_path, clean_rows(120, students=True))
    assert [finding.rule for finding in report.findings] == ["few-prompts"]
    assert report.verdict == "Nothing found that would spoil a run."


@pytest.mark.parametrize("name", TEXT_DEFECTS)
def test_a_defect_in_one_row_of_six_is_found_with_its_rows_and_nothing_else_is(tmp_path: Path, name: str):
    rule, defect = TEXT_DEFECTS[name]
    found = findings_of(tmp_path, with_defect(defect))
    # The same boilerplate in another script or in a loop is boilerplate too.
    assert set(found) - {"shared-answers"} == {rule} - {"shared-answers"}
    finding = found[rule]
    assert finding.value == pytest.approx(10 / 60)
    lines = {int(sample.place.rpartition(":")[2]) for sample in finding.samples}
    assert lines
    assert all(line % 6 == 1 for line in lines)


def test_a_repeated_row_is_told_from_another_answer_to_its_prompt_and_from_a_prompt_like_it(tmp_path: Path):
    rows = clean_rows()
    again = dict(rows[3])
    another = {**rows[7], "teacher_response": answer(random.Random(99))}
    # 40 words that differ in the last one: nearly all 5-grams are common.
    text = sentence(random.Random(1), low=40, high=40)
    like = [{"content": f"{text} {end}?", "teacher_response": answer(random.Random(end))} for end in (5, 6)]
    report = report_of(tmp_path, [*rows, again, another, *like])
    duplicates = report.figures.duplicates
    assert (duplicates.rows.count, duplicates.prompts.count, duplicates.near_prompts.count) == (1, 1, 1)
    assert duplicates.largest_cluster == 2
    assert duplicates.rows.samples[0].place.endswith(":61")
    assert duplicates.prompts.samples[0].note.endswith(":8")
    assert duplicates.near_prompts.samples[0].note.split(": ")[0].endswith(":63")
    assert {"duplicate-rows", "duplicate-prompts"} <= {finding.rule for finding in report.findings}


def test_held_out_prompts_in_the_data_are_found_exactly_and_nearly(tmp_path: Path):
    rows = clean_rows()
    heldout = clean_rows(20, seed=5)
    heldout[0]["content"] = "  ".join(rows[10]["content"].split())  # white space does not count
    long = sentence(random.Random(2), low=40, high=40)
    rows[11]["content"], heldout[1]["content"] = f"{long} one?", f"{long} two?"
    path = write(tmp_path / "heldout.jsonl", heldout)
    found = findings_of(tmp_path, rows, heldout=(str(path),))
    assert set(found) == {"heldout-leak", "heldout-near-leak"}
    for rule, line in (("heldout-leak", 11), ("heldout-near-leak", 12)):
        assert found[rule].value == pytest.approx(1 / 20)
        assert f"rows.jsonl:{line}" in found[rule].samples[0].note


def test_one_id_for_two_different_rows_is_unusable_as_in_training(tmp_path: Path):
    rows = clean_rows(20)
    rows[0]["id"] = rows[1]["id"] = "a"
    finding = findings_of(tmp_path, rows)["unusable-rows"]
    assert "1 × duplicate_id" in finding.evidence
    assert finding.samples[0].place.endswith(":2")


def test_a_student_that_is_always_shorter_is_told_by_length_alone(tmp_path: Path):
    rows = clean_rows(students=True)
    for row in rows:
        row["student_response"] = " ".join(
            row["teacher_response"].split()[: len(row["teacher_response"].split()) // 2]
        )
    found = findings_of(tmp_path, rows)
    assert found["length-shortcut"].severity is Severity.CRITICAL
    assert found["length-shortcut"].value >= 0.99


def test_a_mark_that_only_one_side_carries_is_told_by_surface_alone_and_named(tmp_path: Path):
    rows = clean_rows(students=True)
    for row in rows:
        row["teacher_response"] += "\n"
    found = findings_of(tmp_path, rows)
    assert set(found) == {"surface-shortcut"}
    assert found["surface-shortcut"].severity is Severity.CRITICAL
    assert "ends with blanks (teacher 1, student 0)" in found["surface-shortcut"].evidence


@pytest.mark.parametrize(
    ("rule", "defect"),
    [
        ("sides-alike", lambda row, i: row.update(student_response=row["teacher_response"])),
        ("student-cut", set_fields(stop_reason="length")),
        ("broken-student-text", put("student_response", lambda t, i: f"{t[:-1]}\ufffd.")),
        ("student-other-script", put("student_response", lambda t, i: "天空是蓝色的，因为空气散射蓝光比红光多得多。" * 3)),
    ],
)  # fmt: skip
def test_a_defect_of_the_students_side_is_found(tmp_path: Path, rule: str, defect: Defect):
    rows = clean_rows(students=True)
    for row in rows[::4]:
        defect(row, 0)
    assert findings_of(tmp_path, rows)[rule].value == pytest.approx(0.25)


def test_swapped_sides_are_found_by_scores_that_put_the_student_above(tmp_path: Path):
    rows = clean_rows(40, students=True)
    for i, row in enumerate(rows):
        row["teacher_score"], row["student_score"] = -1.0 - i % 3, 1.0
    found = findings_of(tmp_path, rows)
    assert found["teacher-loses"].severity is Severity.CRITICAL
    for row in rows:
        row["teacher_score"], row["student_score"] = row["student_score"], row["teacher_score"]
    assert "teacher-loses" not in findings_of(tmp_path, rows)


def test_scores_that_go_with_length_are_found_and_others_are_not(tmp_path: Path):
    rows = clean_rows(40, students=True)
    for row in rows:
        row["teacher_score"] = -float(len(row["teacher_response"]))
        row["student_score"] = -float(len(row["student_response"]))
    finding = findings_of(tmp_path, rows)["score-follows-length"]
    assert finding.severity is Severity.CRITICAL
    assert "correlation of the critic's score with log length -0.9" in finding.evidence
    draw = random.Random(7)
    for row in rows:
        row["teacher_score"], row["student_score"] = draw.random(), draw.random()
    assert "score-follows-length" not in findings_of(tmp_path, rows)


def test_every_override_in_the_table_is_one_that_a_recipe_takes():
    overrides = [override for rule in RULES for override in rule.overrides]
    assert overrides
    for override in overrides:
        load_config("quickstart", [override])


def test_every_rule_has_a_name_of_its_own_and_something_to_do():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.hints and rule.meaning for rule in RULES)


def test_conversions_and_what_is_not_used_are_told(tmp_path: Path) -> None:
    rows = clean_rows(6)
    for row in rows:
        row["conversations"] = [
            {"from": "human", "value": row.pop("content")},
            {"from": "gpt", "value": row.pop("teacher_response")},
        ]
    rows[0]["system"] = "Be brief."
    rows[1]["notes"] = "seen"
    rows.append({"content": "q", "teacher_response": "<think>t</think>a"})
    figures = make_report(
        ReportSettings(files=(str(write(tmp_path / "a.jsonl", rows)),)), on_progress=lambda *_: None
    ).figures
    assert figures.conversions == {"conversations → prompt and response": 5}
    assert figures.unused_columns == ("notes",)
    assert {reason.value: found.count for reason, found in figures.rejected.items()} == {
        "unmapped_column": 1,
        "thought": 1,
    }
    shown = [row[0] for table in tables_of(figures) if table.title == "Rows" for row in table.rows]
    assert "converted: conversations → prompt and response" in shown
    assert "a column of text that is not used: notes" in shown
