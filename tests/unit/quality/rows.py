"""Clean rows without end: sentences of random words, so that nothing about them tells a teacher from a student."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gad_ray.quality.figures import Figures
from gad_ray.quality.findings import DataFinding
from gad_ray.quality.report import QualityReport, make_report
from gad_ray.quality.settings import ReportSettings

_SYLLABLES = [
    a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "il", "os", "um")
]

Row = dict[str, Any]


def sentence(draw: random.Random, *, low: int = 6, high: int = 14) -> str:
    words = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(draw.randint(low, high))]
    return " ".join(words).capitalize() + "."


def answer(draw: random.Random) -> str:
    return " ".join(sentence(draw) for _ in range(draw.randint(1, 5)))


def clean_rows(num: int = 60, *, students: bool = False, seed: int = 0) -> list[Row]:
    """Rows with which nothing is wrong, but that they are few."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for _ in range(num):
        row: Row = {"content": sentence(draw)[:-1] + "?", "teacher_response": answer(draw)}
        if students:
            row["student_response"] = answer(draw)
        rows.append(row)
    return rows


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def report_on(path: Path, **settings: Any) -> QualityReport:
    return make_report(
        ReportSettings(files=(str(path),), **settings), on_progress=lambda what, done, total: None
    )


def report_of(tmp_path: Path, rows: Iterable[Mapping[str, Any]], **settings: Any) -> QualityReport:
    return report_on(write(tmp_path / "rows.jsonl", rows), **settings)


def figures_of(tmp_path: Path, rows: Iterable[Mapping[str, Any]], **settings: Any) -> Figures:
    return report_of(tmp_path, rows, **settings).figures


def findings_of(tmp_path: Path, rows: Iterable[Mapping[str, Any]], **settings: Any) -> dict[str, DataFinding]:
    """What is found beside that the rows are few."""
    report = report_of(tmp_path, rows, **settings)
    return {finding.rule: finding for finding in report.findings if finding.rule != "few-prompts"}
