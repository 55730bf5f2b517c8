"""The cost model against two published runs (docs/plan.md). It was not fitted to them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.planning.published import PAPER, REPLICATION

PAGE = Path(__file__).resolve().parents[3] / "docs" / "plan.md"


def test_the_papers_run_is_planned_within_a_factor_of_two() -> None:
    assert PAPER.hours < PAPER.planned_hours() < 2 * PAPER.hours


def test_the_replication_is_planned_within_a_factor_of_four() -> None:
    assert REPLICATION.hours / 4 < REPLICATION.planned_hours() < REPLICATION.hours


def test_the_page_tells_the_hours_that_the_model_gives() -> None:
    told = re.findall(r"planned (\d+(?:\.\d+)?) h", PAGE.read_text(encoding="utf-8"))
    assert [float(hours) for hours in told] == [
        pytest.approx(run.planned_hours(), rel=0.02) for run in (PAPER, REPLICATION)
    ]
