"""What is shown: on the terminal, as HTML and as JSON, whatever the data say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import escape
from rich.console import Console

from gad_ray.cli import main
from gad_ray.cli.data_report import report_as_json
from gad_ray.quality.html import render_html
from gad_ray.quality.report import QualityReport
from gad_ray.quality.terminal import print_report
from tests.unit.quality.rows import clean_rows, report_of, write
from tests.unit.report.script import run_script

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> {{ 7 * 7 }} [red]rot[/red] \x1b[31m'


class Tags(HTMLParser):
    """Notes every tag, every attribute, every reference, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in {"src", "href"}}

    def handle_data(self, data: str) -> None:
        self.text += data


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> QualityReport:
    """Hostile text in every place that is shown: prompts, both answers, names of fields that are missing."""
    rows = clean_rows(30, students=True)
    for row in rows:
        row["content"] = f"{HOSTILE[:-5]} {row['content']}"
        row["teacher_response"] += "<|im_end|>"
        row["student_response"] = f"{HOSTILE} {row['student_response']}"
    rows.append(
        {
            "content": "天空为什么是蓝色的？",
            "teacher_response": "因为空气散射蓝光。\u202e",
            "student": "不知道。",
        }
    )
    rows.append({HOSTILE: 1})
    return report_of(tmp_path_factory.mktemp("hostile"), rows)


def test_text_of_the_data_stays_text_in_the_page(hostile: QualityReport):
    page = render_html(hostile, made_at="now")
    seen = Tags(page)
    assert not {"img", "iframe", "object", "red"} & set(seen.tags)
    assert seen.tags.count("script") == 2, "the charts' data and the page's own"
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert '<script>alert("x")</script>' in seen.text  # shown as it stands
    assert "{{ 7 * 7 }}" in seen.text
    assert "⟨U+202E⟩" in seen.text
    assert "\x1b" not in page


def test_the_page_loads_nothing_and_forbids_itself_to(hostile: QualityReport):
    page = render_html(hostile, made_at="now")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = unescape(policy)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert all(link.startswith(("#", "data:,")) for link in Tags(page).links)
    assert not re.search(r"@import|url\(", page)
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}
    assert "天空为什么是蓝色的？" in page


def test_every_chart_is_drawn_and_its_values_can_be_read_without_the_script(
    hostile: QualityReport, tmp_path: Path
):
    page = render_html(hostile, made_at="now")
    drawn = {chart["title"]: chart for chart in run_script(page, tmp_path / "page.html")["charts"]}
    assert len(drawn) >= 3
    for title, chart in drawn.items():
        if title.startswith("Length gap"):
            place, kind = page, title.replace("Length gap", "Gap")
        else:
            place, kind = page[page.index('id="charts-data"') :], title
        told = re.findall(rf"<h3>{escape(kind)}</h3>\s*<table>(.*?)</table>", place, re.DOTALL)[0]
        rows = re.findall(r"<tr><td>(.*?)</tr>", told)
        values = [cell for row in rows for cell in re.findall(r'<td class="num">(.*?)</td>', row)]
        if kind == title:
            assert chart["bars"] == len([value for value in values if value != "0.0%"]) >= 1, title
        else:
            assert chart["bars"] == len(rows) >= 2, title
    comparison = hostile.figures.comparison
    assert comparison is not None
    for side, histogram in zip(("teacher", "student"), comparison.length_histograms, strict=True):
        assert side in drawn["Lengths"]["legend"]
        assert sum(histogram.counts) == 31
    assert drawn["Lengths"]["bars"] == sum(
        count > 0 for histogram in comparison.length_histograms for count in histogram.counts
    )
    assert drawn["Ratio of lengths"]["borders"] == 1, "where both sides are as long"


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_everything_within_its_width_and_takes_no_text_for_markup(
    hostile: QualityReport, width: int
):
    console = Console(record=True, width=width, force_terminal=False, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_report(hostile, console)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= width
    assert "\x1b" not in shown
    for finding in hostile.findings:
        assert finding.rule in shown
    assert "[red]rot[/red]" in shown.replace("\n", "").replace(" " * 9, "")
    assert shown.rstrip().endswith(hostile.verdict)


def test_json_holds_the_same_figures_and_nothing_that_json_has_not(hostile: QualityReport):
    text = json.dumps(report_as_json(hostile), allow_nan=False)
    value = json.loads(text)
    assert value["verdict"] == hostile.verdict
    assert [f["rule"] for f in value["findings"]] == [f.rule for f in hostile.findings]
    assert {"rule", "severity", "value", "evidence", "meaning", "advice", "overrides", "samples"} == set(
        value["findings"][0]
    )
    assert value["figures"]["comparison"]["length_only"]["d_acc"]["value"] == pytest.approx(
        hostile.figures.comparison.length_only.d_acc.value  # type: ignore[union-attr]
    )
    assert value["figures"]["rejected"]["no_prompt"]["count"] == 1


def test_the_command_writes_page_and_json_and_prints_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = write(tmp_path / "rows.jsonl", clean_rows(30))
    page, figures = tmp_path / "r.html", tmp_path / "r.json"
    assert run("data", "report", str(rows), "--out", str(page), "--json", str(figures)) == 0
    shown = capsys.readouterr().out
    assert "distinct prompts" in shown
    assert "--policy MODEL" in shown
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(figures.read_text(encoding="utf-8"))["figures"]["num_rows"] == 30


def test_json_on_standard_output_is_json_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = write(tmp_path / "rows.jsonl", clean_rows(5))
    assert run("data", "report", str(rows), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["figures"]["num_usable"] == 5


def test_strict_makes_a_critical_finding_the_exit_code(tmp_path: Path):
    rows = clean_rows(10)
    rows[0]["teacher_response"] = None
    path = str(write(tmp_path / "rows.jsonl", rows))
    assert run("data", "report", path) == 0
    assert run("data", "report", path, "--strict") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "there is no file"),
        (["{rows}", "--out", "{dir}/none/r.html"], "there is no directory"),
        (["{rows}", "--policy", "/nowhere"], "does not exist"),
        (["{rows}", "--critic", "{dir}", "--policy", "/nowhere"], "does not exist"),
        (["{rows}", "--policy", "x/y", "--engine", "vlm"], "no engine"),
        (["{rows}", "--heldout", "{dir}/nowhere.jsonl"], "there is no file"),
    ],
)
def test_a_wrong_call_ends_with_its_reason_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    rows = write(tmp_path / "rows.jsonl", clean_rows(3))
    given = [a.format(rows=rows, dir=tmp_path) for a in arguments]
    assert run("data", "report", *given) == 2
    assert message in capsys.readouterr().err
