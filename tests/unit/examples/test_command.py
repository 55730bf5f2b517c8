"""``python -m examples.toy`` and ``examples.failures``: what is printed and written, and how they fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from examples.failures import settings
from examples.failures.__main__ import app as failures
from examples.failures.__main__ import finding_table, verdict_line
from examples.failures.catalogue import FAILURES
from examples.failures.finding import Figure, Finding
from examples.toy.__main__ import app as toy
from gad_ray import cli
from gad_ray.config.run import RunConfig


def run(app: typer.Typer, *arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.run(app, "example", arguments)
    return int(left.value.code or 0)


def test_the_toy_prints_its_table_and_writes_figures_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "place"
    assert run(toy, "--out", str(out), "--seed", "2") == 0
    shown = capsys.readouterr().out
    assert "KL(student‖teacher)" in shown
    figures = json.loads((out / "toy.json").read_text(encoding="utf-8"))
    assert figures["seed"] == 2
    assert f"{figures['game']['reverse_kl']:.3f}" in shown
    assert (out / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_a_failure_is_printed_and_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_settings: RunConfig,
) -> None:
    seeds: list[int] = []

    def tiny(*, seed: int) -> RunConfig:
        seeds.append(seed)
        return tiny_settings

    monkeypatch.setattr(settings, "default_settings", tiny)
    monkeypatch.setenv("COLUMNS", "200")
    assert run(failures, "eos-asymmetry", "--out", str(tmp_path), "--seed", "5") == 0
    shown = capsys.readouterr()
    assert seeds == [5]
    assert "d_acc on identical held-out answers" in shown.out
    assert "training a critic that sees the student's end-of-turn token for 4 steps" in shown.err
    written = json.loads((tmp_path / "failures.json").read_text(encoding="utf-8"))
    assert [f["failure"] for f in written["findings"]] == ["eos-asymmetry"]


def test_an_unknown_failure_and_an_unusable_directory_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failures, "saturaton", "--out", str(tmp_path)) == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in FAILURES)
    (tmp_path / "file").write_text("")
    assert run(toy, "--out", str(tmp_path / "file")) == 2
    assert "cannot be written to" in capsys.readouterr().err


@pytest.fixture
def finding() -> Finding:
    return Finding(
        failure="saturation",
        setting="τ 0.5",
        ours="τ 5",
        claim="it vanishes",
        holds=False,
        figures=(Figure(label="gradient", field=0.012345, ours=0.0), Figure(label="d", field=9.0)),
        seconds=61.4,
    )


def test_a_claim_that_does_not_hold_is_said_not_to(finding: Finding) -> None:
    assert verdict_line(finding) == "does not hold: it vanishes (61 s)"


def test_an_exact_zero_is_shown_as_such_and_a_missing_figure_not_at_all(finding: Finding) -> None:
    cells = [list(column.cells) for column in finding_table(finding).columns]
    assert cells == [["gradient", "d"], ["0.01235", "9"], ["0", ""]]
