"""The page's JavaScript, run by a real engine wherever the tests run; a browser of its own is in ``test_browser``."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from gad_ray.report.page import comparison_page, run_page
from gad_ray.report.view import load_view
from tests.unit.report.runs import CHINESE, EVIL, add_event, append, make_run, step_row, whole_run
from tests.unit.report.script import run_script


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = whole_run(tmp_path_factory.mktemp("script") / "run")
    row = step_row(13, **{"critic/score_diff": None, "nonfinite": {"critic/score_diff": "nan"}})
    append(directory.metrics_jsonl, [row])
    page = run_page(load_view(directory.root))
    return run_script(page, directory.root / "page.html")


def chart(result: dict[str, Any], title: str) -> dict[str, Any]:
    (found,) = [one for one in result["charts"] if one["title"] == title]
    return found


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def test_every_curve_is_drawn_within_its_picture(result: dict[str, Any]) -> None:
    curves = [one for one in result["charts"] if one["lines"]]
    assert len(curves) >= 8
    for one in curves:
        for path in one["lines"]:
            assert "NaN" not in path
            for x, y in points(path):
                assert 50 <= x <= 560
                assert 0 <= y <= 190


def test_a_curve_goes_where_its_values_go(result: dict[str, Any]) -> None:
    (path,) = chart(result, "Score difference, teacher − student")["lines"]
    drawn = points(path)
    assert len(drawn) == 12
    assert all(right > left for (left, _), (right, _) in itertools.pairwise(drawn))
    # The values rise, and the picture's y axis points down.
    assert all(below > above for (_, below), (_, above) in itertools.pairwise(drawn))


def test_stages_bands_findings_and_lost_values_are_marked(result: dict[str, Any]) -> None:
    difference = chart(result, "Score difference, teacher − student")
    assert difference["borders"] == 1
    assert difference["bands"] == 1
    assert difference["marks"] == ["step 3: length-shortcut"]
    assert difference["lost"] == ["step 13: critic/score_diff was not finite"]
    assert chart(result, "Teacher preferred")["bands"] == 2
    assert len(chart(result, "Teacher preferred on held-out prompts")["areas"]) == 1


def test_dots_and_bars_are_drawn_one_for_each_value(result: dict[str, Any]) -> None:
    assert chart(result, "Student's score against length")["dots"] == 24
    assert chart(result, "Seconds per step")["bars"] == 13 * 4


def test_a_cursor_tells_the_step_and_its_values(result: dict[str, Any]) -> None:
    assert result["cursor"]["says"] == "step 2 · warmup"
    assert "critic/d_acc0.8307" in result["cursor"]["legend"]
    assert (result["cursor"]["shown"], result["cursor"]["after"]) == (1, 0)
    assert result["mouse"] == "step 13 · adversarial"


def test_the_buttons_change_the_pictures(result: dict[str, Any]) -> None:
    assert result["log"]["pressed"] == "true"
    assert result["log"]["before"] != result["log"]["after"]
    assert result["raw"] >= 8, "a smoothed curve leaves the raw one faint behind it"
    assert result["theme"] == "dark"


def test_the_sample_browser_turns_finds_and_sorts(result: dict[str, Any]) -> None:
    browser = result["browser"]
    assert browser["start"]["position"] == "1 of 25"
    assert (browser["start"]["back"], browser["start"]["on"]) == (False, True)
    assert (browser["next"]["chosen"], browser["next"]["back"]) == (1, True)
    assert browser["end"]["position"] == "25 of 25"
    assert not browser["end"]["on"]
    assert browser["heldOut"]["position"] == "1 of 1"
    assert len(browser["heldOut"]["texts"]) == 3
    assert "teacher − student: 1.5" in browser["byGap"]["detail"]
    assert browser["chinese"]["rows"] == 22
    assert CHINESE in browser["chinese"]["detail"]
    assert "zh-Hans" in browser["chinese"]["languages"]
    assert (browser["none"]["rows"], browser["none"]["position"]) == (0, "nothing found")


def test_the_values_of_tokens_stand_as_colour_on_the_whole_text(result: dict[str, Any]) -> None:
    coloured = result["browser"]["coloured"]
    assert coloured["texts"] == ["天空。", "答案"]
    teacher, student = coloured["colours"]
    # Of 1, 2, 0 and -1, 0 the mean is 0.4: what is above it is blue, what is below orange.
    assert [colour.split(",")[0] for colour in teacher] == ["rgba(33", "rgba(33", "rgba(226"]
    assert [colour.split(",")[0] for colour in student] == ["rgba(226", "rgba(226"]


def test_markup_in_a_response_is_shown_as_it_is(result: dict[str, Any]) -> None:
    # The stand-in has no innerHTML: had the script made markup of text, it would have failed.
    assert result["browser"]["start"]["texts"] == ["天空。", EVIL]


def test_a_page_without_any_step_has_no_charts_and_no_error(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    add_event(directory, "failed", after=0, error="no")
    result = run_script(run_page(load_view(directory.root)), tmp_path / "page.html")
    assert result["charts"] == []


def test_a_page_with_a_single_step_draws_dots(tmp_path: Path) -> None:
    result = run_script(run_page(load_view(make_run(tmp_path / "run", steps=1).root)), tmp_path / "page.html")
    assert points(chart(result, "Teacher preferred")["lines"][0])


def test_compared_runs_are_told_apart_by_name(tmp_path: Path) -> None:
    views = [load_view(make_run(tmp_path / name, steps=steps).root) for name, steps in (("a", 12), ("b", 6))]
    result = run_script(comparison_page(views), tmp_path / "page.html")
    both = chart(result, "critic/d_acc")
    assert len(both["lines"]) == 2
    assert both["legend"].startswith("a")
    assert "browser" not in result
