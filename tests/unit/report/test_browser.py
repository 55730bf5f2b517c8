"""The report in a real browser. Beside it, ``test_script`` runs the same script where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gad_ray.quality.html import render_html
from gad_ray.report.page import comparison_page, run_page
from gad_ray.report.view import load_view
from tests.browser import browser, find_browser
from tests.unit.quality.rows import clean_rows, report_of
from tests.unit.report.runs import CHINESE, EVIL, make_run, whole_run

PROGRAM = find_browser()

pytestmark = pytest.mark.skipif(
    PROGRAM is None,
    reason="no Chromium or Chrome on the PATH; on Debian: apt-get install chromium fonts-noto-cjk",
)

_USE = """
(() => {
  const type = (element, value, kind) => {
    element.value = value;
    element.dispatchEvent(new Event(kind));
  };
  const browser = document.getElementById("browser");
  const [search] = browser.querySelectorAll("input");
  const [source, order] = browser.querySelectorAll("select");
  const position = () => browser.querySelector(".position").textContent;
  const seen = { start: position() };
  [...browser.querySelectorAll("button")].at(-1).click();
  seen.next = position();
  type(search, "天空为什么", "input");
  seen.found = position();
  seen.chinese = browser.querySelector(".detail .text:lang(zh)").textContent;
  type(search, "onerror", "input");
  seen.evil = browser.querySelector(".side:nth-child(2) .text").textContent;
  type(search, "", "input");
  type(order, "with token values first", "change");
  seen.colours = [...browser.querySelectorAll(".side span")].map((s) => getComputedStyle(s).backgroundColor);
  type(document.getElementById("smoothing"), "20", "change");
  const box = document.querySelector("#charts-critic .plot").getBoundingClientRect();
  const move = new MouseEvent("mousemove", { clientX: box.right - 12, clientY: box.top + 50, bubbles: true });
  document.querySelector("#charts-critic .plot").dispatchEvent(move);
  seen.readout = document.querySelector("#charts-critic .readout").textContent;
  return seen;
})()
"""

_DRAWN = """
[...document.querySelectorAll("figure.chart svg")].map((svg) => {
  const box = svg.getBoundingClientRect();
  const lines = [...svg.querySelectorAll(".line, .bar, .spot, .dot")].map((line) => line.getBBox());
  return [box.width, box.height, lines.some((line) => line.width + line.height > 0)];
})
"""


def test_the_report_works_in_a_browser_without_a_complaint(tmp_path: Path) -> None:
    assert PROGRAM is not None
    directory = whole_run(tmp_path / "run")
    path = tmp_path / "report.html"
    path.write_text(run_page(load_view(directory.root)), encoding="utf-8")
    both = tmp_path / "comparison.html"
    views = [load_view(directory.root), load_view(make_run(tmp_path / "other", steps=6).root)]
    both.write_text(comparison_page(views), encoding="utf-8")
    with browser(PROGRAM, tmp_path / "profile") as page:
        page.resize(1280, 900)
        page.open(path)
        drawn = page.run(_DRAWN)
        assert len(drawn) >= 12
        for width, height, has_curve in drawn:
            assert width > 300
            assert height > 100
            assert has_curve
        seen = page.run(_USE)
        assert (seen["start"], seen["next"], seen["found"]) == ("1 of 25", "2 of 25", "1 of 22")
        assert seen["chinese"] == CHINESE
        assert seen["evil"] == EVIL
        assert page.run("document.images.length") == 0
        assert len(set(seen["colours"])) > 2
        assert seen["readout"] == "step 12 · adversarial"
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        for width, dark in ((400, False), (1280, True)):
            page.resize(width, 900, dark=dark)
            page.open(path)
            assert page.run("document.documentElement.scrollWidth <= innerWidth"), (
                f"{width} pixels are enough"
            )
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
        assert page.screenshot(tmp_path / "dark.png", whole=True).stat().st_size > 20_000
        page.open(both)
        assert [has_curve for *_, has_curve in page.run(_DRAWN)] == [True] * 12
        assert page.complaints == []


def test_the_data_report_is_drawn_in_a_browser_without_a_complaint(tmp_path: Path) -> None:
    assert PROGRAM is not None
    path = tmp_path / "data.html"
    report = report_of(tmp_path, clean_rows(30, students=True))
    path.write_text(render_html(report, made_at="now"), encoding="utf-8")
    with browser(PROGRAM, tmp_path / "profile") as page:
        for width, dark in ((400, True), (1280, False)):
            page.resize(width, 900, dark=dark)
            page.open(path)
            assert page.run("document.documentElement.scrollWidth <= innerWidth"), (
                f"{width} pixels are enough"
            )
        drawn = page.run(_DRAWN)
        assert len(drawn) >= 3
        assert all(width > 300 and has_bars for width, _, has_bars in drawn)
        assert page.screenshot(tmp_path / "data.png", whole=True).stat().st_size > 20_000
        assert page.complaints == []


def test_a_complaint_is_noticed(tmp_path: Path) -> None:
    assert PROGRAM is not None
    path = tmp_path / "broken.html"
    path.write_text("<script>console.error('bad'); fetch('http://127.0.0.1:9/x'); nothing.there</script>")
    with browser(PROGRAM, tmp_path / "profile") as page:
        page.open(path)
        page.run("new Promise((done) => setTimeout(done, 0))")
        told = " ".join(page.complaints)
        assert "console.error" in told
        assert "exception" in told
        assert "request: http://127.0.0.1:9/x" in told
