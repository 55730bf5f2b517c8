from __future__ import annotations

import json
from pathlib import Path

import pytest

from gad_ray.data.quarantine import Quarantine, QuarantineReport
from gad_ray.data.rows import EXCERPT_CHARACTERS, Place, Reason, Rejection, excerpt_of
from gad_ray.errors import DataError


def rejection(number: int, reason: Reason, excerpt: str = "…") -> Rejection:
    return Rejection(place=Place(file="a.jsonl", number=number), reason=reason, detail="why", excerpt=excerpt)


def quarantined(path: Path, *reasons: Reason, num_rows: int) -> QuarantineReport:
    with Quarantine(path) as quarantine:
        for number, reason in enumerate(reasons, start=1):
            quarantine.add(rejection(number, reason))
        return quarantine.report(num_rows=num_rows)


def test_every_rejection_is_a_line_with_file_line_reason_detail_and_excerpt(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "quarantine.jsonl"
    with Quarantine(path) as quarantine:
        quarantine.add(rejection(3, Reason.MOJIBAKE, excerpt="你好 \ud800 \u2028 \x00"))
        quarantine.add(rejection(9, Reason.NO_PROMPT))
    first, second = path.read_bytes().split(b"\n")[:2]
    assert "你好".encode() in first
    assert json.loads(first) == {
        "file": "a.jsonl",
        "line": 3,
        "reason": "mojibake",
        "detail": "why",
        "excerpt": "你好 \ud800 \u2028 \x00",
    }
    assert json.loads(second)["line"] == 9


def test_an_older_quarantine_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantined(path, Reason.MOJIBAKE, num_rows=1)
    quarantined(path, num_rows=1)
    assert path.read_bytes() == b""


def test_a_share_at_the_threshold_passes_and_one_above_it_is_refused(tmp_path: Path) -> None:
    report = quarantined(tmp_path / "q.jsonl", Reason.MOJIBAKE, num_rows=20)
    report.check_threshold(0.05)
    with pytest.raises(DataError, match=r"1 of 20 rows \(5.0%\)"):
        report.check_threshold(0.049)


def test_the_refusal_names_counts_top_reasons_first_places_file_and_mend(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    reasons = [Reason.NO_PROMPT, *[Reason.MOJIBAKE] * 3, Reason.BAD_ID, Reason.BAD_META, Reason.NOT_TEXT]
    with pytest.raises(DataError) as caught:
        quarantined(path, *reasons, num_rows=10).check_threshold(0.5)
    text = str(caught.value)
    assert "7 of 10 rows (70.0%)" in text
    assert "0.5: 3 × mojibake (first a.jsonl:2: why); 1 × no_prompt (first a.jsonl:1: why)" in text
    assert "and 1 more" in text
    assert str(path) in text
    assert "max_quarantined_fraction" in text


def test_rows_that_are_merely_held_out_do_not_count_as_unusable(tmp_path: Path) -> None:
    report = quarantined(tmp_path / "q.jsonl", Reason.HELDOUT_PROMPT, Reason.MOJIBAKE, num_rows=4)
    assert (report.num_quarantined, report.num_unusable, report.unusable_fraction) == (2, 1, 0.25)
    report.check_threshold(0.25)


def test_no_rows_at_all_are_no_share(tmp_path: Path) -> None:
    assert quarantined(tmp_path / "q.jsonl", num_rows=0).unusable_fraction == 0.0


def test_a_quarantine_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match=r"file/q\.jsonl: the quarantine file cannot be written"),
        Quarantine(tmp_path / "file" / "q.jsonl"),
    ):
        pass


def test_an_excerpt_is_short_whatever_the_row() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 999, b"\xff" * 999, {"content": "x" * 999}, {(1, 2): 3}, deep):
        assert 0 < len(excerpt_of(value)) <= EXCERPT_CHARACTERS
    assert excerpt_of({"content": "é"}) == '{"content": "é"}'
