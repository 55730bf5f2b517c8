from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import gad_ray.report.write as write_module
from gad_ray.cli import main
from gad_ray.errors import ConfigError
from gad_ray.report import write_report, write_reports
from gad_ray.report.html import as_json
from gad_ray.report.page import comparison_page, run_page
from gad_ray.report.view import load_view
from tests.unit.report.runs import (
    CHINESE,
    EVIL,
    add_event,
    add_finding,
    add_records,
    append,
    make_run,
    step_row,
    whole_run,
)


class Outline(HTMLParser):
    """The tags of a page with their attributes, the content of scripts and styles, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"}:
            self.raw.append((self._inside, data))
        else:
            self.text += data


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_page(load_view(whole_run(tmp_path_factory.mktemp("report") / "run").root))


def test_text_of_a_run_stays_text(page: str) -> None:
    outline = Outline(page)
    tags = [tag for tag, _ in outline.tags]
    assert "img" not in tags
    assert tags.count("script") == 2, "the data and the page's own"
    assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]
    # The account's sample stands in the page as text, the record in the data, both to the letter.
    assert EVIL.replace("\u2028", "") in outline.text.replace("\u2028", "")
    texts = [side["text"] for entry in data_of(page)["samples"] for side in entry["sides"]]
    assert EVIL in texts
    assert CHINESE in {
        message["content"] for entry in data_of(page)["samples"] for message in entry["prompt"]
    }


def test_markup_in_names_of_rules_and_settings_stays_text(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_finding(directory, 2, rule=EVIL, meaning=EVIL, advice=[EVIL], severity=EVIL)
    add_event(directory, EVIL, after=3, step=3, error=EVIL)
    append(directory.metrics_jsonl, [step_row(13, **{EVIL: 1.0}, stage=EVIL)])
    directory.versions_json.write_text(json.dumps({EVIL: EVIL}))
    directory.config_yaml.write_text(json.dumps({"name": EVIL}))
    view = load_view(directory.root)
    for made in (run_page(view), comparison_page([view, view])):
        tags = [tag for tag, _ in Outline(made).tags]
        assert "img" not in tags
        assert tags.count("script") == 2


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    outline = Outline(page)
    links = [
        value for _, attributes in outline.tags for name in ("src", "href") if (value := attributes.get(name))
    ]
    assert all(link.startswith(("#", "data:")) for link in links)
    (style,) = [content for kind, content in outline.raw if kind == "style"]
    assert "@import" not in style
    assert "url(" not in style
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}


def test_only_the_pages_own_script_and_style_may_run(page: str) -> None:
    (policy,) = [
        a["content"] for tag, a in Outline(page).tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_data_ends_no_script_and_holds_no_line_separator() -> None:
    text = as_json({"a": EVIL, "b": "\ud83d"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text)["a"] == EVIL
    with pytest.raises(ValueError, match="JSON"):
        as_json({"a": float("nan")})


def test_the_page_tells_the_runs_state_health_result_and_settings(page: str) -> None:
    text = Outline(page).text
    for wanted in (
        "finished: came to its end after 12 steps",
        "length-shortcut",
        "critic.loss.temperature.value=5.0",
        "reward of the student (last critic; teacher 2.00)",
        "better",
        "From the score records of 12 of 12 recorded steps, 24 responses.",
        "prompts_per_step",
        "3.11.7",
    ):
        assert wanted in text, wanted


def test_a_run_that_died_before_its_first_step_has_a_report(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    add_event(directory, "failed", after=0, error="critic-0 is gone <oom>")
    text = Outline(run_page(load_view(directory.root))).text
    for wanted in (
        "failed before its first step: critic-0 is gone <oom>",
        "no step has been logged",
        "there is nothing to judge",
        "No step was timed",
        "No samples have been recorded",
    ):
        assert wanted in text, wanted


def test_a_run_that_is_going_has_a_report_without_an_account(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    directory.metrics_jsonl.write_bytes(directory.metrics_jsonl.read_bytes()[:-25])
    page = run_page(load_view(directory.root))
    assert "still going after 11 steps" in page
    assert "the last line is cut short" in page
    assert "Before and after" not in page


def test_a_run_that_began_with_a_fit_says_where_the_fits_report_is(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    fit = make_run(directory.warm_start.root, steps=2)
    assert str(fit.report_html) in Outline(run_page(load_view(directory.root))).text


def test_a_report_of_a_run_of_ten_thousand_steps_stays_small(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    append(directory.metrics_jsonl, [step_row(step, warmup=3000) for step in range(1, 10_001)])
    assert len(run_page(load_view(directory.root))) < 600_000


def test_runs_are_compared_in_one_page(tmp_path: Path) -> None:
    directories = [make_run(tmp_path / place / "run", seed=seed) for place, seed in (("a", 1), ("b", 2))]
    add_finding(directories[1], 2)
    path = write_reports([str(d.root) for d in directories], out=tmp_path / "out" / "both.html")
    page = path.read_text(encoding="utf-8")
    text = Outline(page).text
    assert "a/run · b/run" in text, "what tells runs of one name apart"
    assert "length-shortcut" in text
    data = data_of(page)
    assert [run["label"] for run in data["runs"]] == ["a/run", "b/run"]
    assert "samples" not in data


def test_runs_with_the_same_settings_say_so(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run").root
    page = comparison_page([load_view(root), load_view(root)])
    assert "the runs have the same settings" in page
    assert [run["label"] for run in data_of(page)["runs"]] == [
        f"{tmp_path.name}/run (1)",
        f"{tmp_path.name}/run (2)",
    ]


# -- files --------------------------------------------------------------------------------------------


def test_a_report_that_fails_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_run(tmp_path / "run")
    path = write_report(directory.root)
    assert path == directory.report_html
    before = path.read_bytes()

    def broken(_: object) -> str:
        raise RuntimeError("no page")

    monkeypatch.setattr(write_module, "run_page", broken)
    with pytest.raises(RuntimeError):
        write_report(directory.root)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.joinpath("run").glob("*report*")] == ["report.html"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="taken"):
        write_report(directory.root, tmp_path / "taken" / "report.html")


def test_the_command_writes_the_report_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = make_run(tmp_path / "runs" / "run")
    add_records(directory, 1)
    with pytest.raises(SystemExit) as left:
        main(["report", "run"])
    assert left.value.code == 0
    assert str(directory.report_html) in capsys.readouterr().out
    assert directory.report_html.is_file()
    with pytest.raises(SystemExit) as left:
        main(["report", "nowhere"])
    assert left.value.code == 2
    assert "no run is called 'nowhere'" in capsys.readouterr().err
