"""Which rows a report reads, what it does with those it cannot use, and what it says of files it cannot read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gad_ray.batch import SamplingSettings
from gad_ray.errors import DataError, GadError
from gad_ray.models.chat import ChatFormat
from gad_ray.observability.records import ScoreRecordWriter
from gad_ray.quality.report import make_report
from gad_ray.quality.settings import ReportSettings
from tests.unit.builders import STUDENT, prompt_batch, rollout_batch, score_batch
from tests.unit.quality.rows import clean_rows, figures_of, report_on, write


@pytest.mark.parametrize("field", ["student_response", "response", "student"])
def test_a_students_answer_is_read_under_each_of_its_names(tmp_path: Path, field: str):
    rows = [{**row, field: "No."} for row in clean_rows(25)]
    comparison = figures_of(tmp_path, rows).comparison
    assert comparison is not None
    assert (comparison.lengths.count, comparison.lengths.longest) == (25, 3)


def test_a_students_answers_to_one_prompt_are_pairs_and_no_repetitions(tmp_path: Path):
    (row,) = clean_rows(1)
    figures = figures_of(tmp_path, [{**row, "student": text} for text in ("No.", "Yes.", "Yes.")])
    assert figures.comparison is not None
    assert (figures.num_items, figures.comparison.num_prompts, figures.comparison.lengths.count) == (1, 1, 3)
    assert figures.duplicates.rows.count == 1  # the third is the second again


def test_the_records_of_a_run_are_read_with_their_conversations_and_scores(tmp_path: Path, chat: ChatFormat):
    prompts = prompt_batch()
    rollouts = rollout_batch(chat, prompts)
    scores = score_batch([float(i) for i in range(len(rollouts))], [5.0] * len(rollouts))
    assert isinstance(rollouts.sampling, SamplingSettings)
    path = ScoreRecordWriter(tmp_path / "records", max_rows_per_step=64).write(1, prompts, rollouts, scores)
    figures = report_on(path).figures
    assert (figures.num_rows, figures.num_items) == (len(rollouts), len(prompts))
    assert not figures.rejected
    comparison = figures.comparison
    assert comparison is not None
    assert comparison.lengths.count == sum(map(len, STUDENT))
    assert comparison.scores is not None
    # Of scores 0 to 11 five are below the teacher's 5.0 and one is a tie: groups of three win 1, 5/6, 0 and 0.
    assert comparison.scores.teacher_better.value == pytest.approx((1 + 2.5 / 3) / 4)
    assert comparison.scores.gap == pytest.approx(5.0 - 5.5)


def test_rows_that_cannot_be_used_are_counted_with_reasons_and_stop_nothing(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    write(
        path,
        [*clean_rows(3), {"content": "Why?", "teacher_response": " "}, {"content": "Why?", "response": 3}],
    )
    with path.open("ab") as file:
        file.write(b'{"content": "cut off\n\xff\xfe\n[1]\n')
        file.write(b'{"content": "Why?", "teacher_response": "So.", "student": 3}\n')
    figures = report_on(path).figures
    assert (figures.num_rows, figures.num_usable) == (9, 3)
    assert {reason.value: found.count for reason, found in figures.rejected.items()} == {
        "empty_response": 1,
        "no_response": 1,
        "invalid_json": 1,
        "byte_order_mark": 1,
        "not_an_object": 1,
        "not_text": 1,
    }
    assert all(found.samples[0].place.startswith(str(path)) for found in figures.rejected.values())


def test_a_packaged_data_set_is_a_source_and_clean(tmp_path: Path):
    settings = ReportSettings(files=("package:quickstart/zh",), heldout=("package:quickstart/heldout",))
    report = make_report(settings, on_progress=lambda what, done, total: None)
    assert report.figures.num_usable == 67
    assert report.figures.languages["Chinese"] > 60
    assert report.figures.leakage is not None
    assert report.figures.leakage.num_heldout == 64
    assert {finding.rule for finding in report.findings} <= {"few-prompts", "other-script"}


def test_the_same_rows_in_another_order_and_in_two_files_give_the_same_figures(tmp_path: Path):
    rows = clean_rows(40, students=True)
    whole = report_on(write(tmp_path / "a.jsonl", rows)).figures
    write(tmp_path / "part-1.jsonl", rows[30:])
    write(tmp_path / "part-2.jsonl", rows[:30])
    parts = report_on(tmp_path / "part-*.jsonl").figures
    for field in ("num_items", "prompt_lengths", "answer_lengths", "answer_histogram", "formats"):
        assert getattr(whole, field) == getattr(parts, field)


def _no_teacher_column(path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "teacher_reponse": ["b"]}), path)


def _all_unusable(path: Path) -> None:
    write(path, [{"prompt": "Why?", "answer": "So."}, {"prompt": "How?", "answer": "So."}])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("rows.jsonl", None, "there is no file"),
        ("rows.csv", lambda path: path.write_text("a,b"), "data are read from"),
        ("rows.jsonl", lambda path: path.write_text(""), "holds no rows"),
        ("rows.parquet", lambda path: path.write_bytes(b"PAR1 cut off"), "cannot be read as Parquet"),
        ("rows.parquet", _no_teacher_column, "rename 'teacher_reponse'"),
        ("rows.jsonl", _all_unusable, "none of 2 rows can be used: 2 × no_response .*rows.jsonl:"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_mend(tmp_path: Path, name: str, make, message: str):
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        report_on(tmp_path / name)
    assert isinstance(caught.value, GadError)
    assert name in str(caught.value)
    assert caught.value.hint
