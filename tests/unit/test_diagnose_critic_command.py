"""``gad-ray diagnose --critic DIR --data FILE`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gad_ray.cli import main
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, critic_config, critic_learner


@pytest.fixture(scope="module")
def critic(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exports") / "critic"
    learner = critic_learner(critic_config(tied_model))
    learner.model.head.weight.data.zero_()
    learner.export(directory)
    return directory


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [
        {"content": prompt, "teacher_response": teacher, "student_response": students[0]}
        for prompt, teacher, students in zip(PROMPTS, TEACHER, STUDENT, strict=False)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"content": "no answer"}]))
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["diagnose", *map(str, arguments)])
    return int(left.value.code or 0)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_a_collapsed_critic_is_shown_with_figures_findings_and_verdict(
    critic: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--critic", critic, "--data", rows) == 0
    shown = capsys.readouterr().out
    for part in (
        "on 4 rows",
        "tokens' values: standard deviation",
        "identical answer in one call",
        "token-values-collapsed",
        "1 rows were not usable",
        "verdict: sick",
    ):
        assert part in shown


def test_it_speaks_chinese_and_exits_as_it_is_asked_to(
    critic: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--critic", critic, "--data", rows, "--lang", "zh", "--fail-on", "critical") == 1
    assert "判别器已坍缩" in capsys.readouterr().out


def test_json_holds_figures_findings_and_verdict(
    critic: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--critic", critic, "--data", rows, "--json", "--rows", 2) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["critic", "data", "left_out", "figures", "findings", "verdict"]
    assert told["figures"]["num_rows"] == 2
    assert told["figures"]["same_call"] == 0.0
    assert "token-values-collapsed" in {one["rule"] for one in told["findings"]}
    assert told["left_out"] == {"unusable": 1, "too_long": 0}


def test_what_cannot_be_done_ends_with_2_and_a_mend(
    critic: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"content": "no answer"}\n')
    for arguments, said in (
        (("--critic", critic), "go together"),
        (("--data", rows), "go together"),
        (("some-run", "--critic", critic, "--data", rows), "RUN is of a run's log"),
        (("--critic", tmp_path, "--data", rows), "is not an exported critic"),
        (("--critic", critic, "--data", empty), "holds no usable row"),
        (("--critic", critic, "--data", tmp_path / "missing.jsonl"), "there is no file"),
        (("--critic", critic, "--data", rows, "--lang", "fr"), "one of: en, zh"),
    ):
        assert run(*arguments) == 2
        assert said in capsys.readouterr().err
