from __future__ import annotations

import json
import math

import pytest

from gad_ray.errors import DataError
from gad_ray.observability.summary import RunSummary, SampleRow, SummaryRow

SUMMARY = RunSummary(
    name="game",
    rows=(
        SummaryRow(label="teacher-text likelihood", before=2.5, after=2.25, better="lower", unit="nats"),
        SummaryRow(label="response length", before=80.0, after=None, digits=0),
    ),
    samples=(
        SampleRow(
            prompt="为什么 [bold]?",
            teacher="x" * 5000,
            before="a",
            after="b",
            teacher_score=1.5,
            before_score=-1.0,
            after_score=None,
        ),
    ),
    paths=(("policy", "runs/game/exports/policy"), ("metrics", "runs/game/metrics.jsonl")),
    timing={"rollout": 61.5},
    peak_memory_gib=3.25,
)


def test_a_summary_comes_back_from_json_as_it_was_with_texts_in_full() -> None:
    assert RunSummary.from_json(SUMMARY.to_json()) == SUMMARY


def test_a_value_that_is_not_finite_is_kept_as_none() -> None:
    summary = RunSummary(
        name="game",
        rows=(SummaryRow(label="likelihood", before=math.nan, after=math.inf),),
        samples=(),
        paths=(),
    )
    row = RunSummary.from_json(summary.to_json()).rows[0]
    assert row.before is None
    assert row.after is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 2}', '{"format": 1, "name": "x"}'])
def test_what_is_no_summary_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not a run summary"):
        RunSummary.from_json(text)


def test_the_format_is_named_in_the_file() -> None:
    assert json.loads(SUMMARY.to_json())["format"] == 1


@pytest.mark.parametrize(
    ("before", "after", "better", "improved"),
    [
        (1.0, 2.0, "higher", True),
        (2.0, 1.0, "higher", False),
        (2.0, 1.0, "lower", True),
        (1.0, 1.0, "lower", None),
        (1.0, 2.0, None, None),
        (None, 2.0, "higher", None),
    ],
)
def test_only_a_change_with_a_direction_is_better_or_worse(
    before: float | None, after: float, better: str | None, improved: bool | None
) -> None:
    row = SummaryRow(label="x", before=before, after=after, better=better)  # type: ignore[arg-type]
    assert row.improved is improved
