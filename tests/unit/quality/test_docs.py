"""That docs/data_report.md says what the table of rules says."""

from __future__ import annotations

from pathlib import Path

from gad_ray.quality.rules import RULES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "data_report.md"


def _cell(limit: float | None) -> str:
    return "–" if limit is None else f"{limit:g}" if limit else "any"


def test_every_rule_stands_in_the_docs_with_its_thresholds():
    rows = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and line.count("|") == 6
    ]
    told = {row.split("`")[1]: [cell.strip() for cell in row.split("|")[2:5]] for row in rows}
    assert told == {
        rule.name: [_cell(rule.note), _cell(rule.warning), _cell(rule.critical)] for rule in RULES
    }
