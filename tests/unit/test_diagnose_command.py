"""``gad-ray diagnose`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gad_ray.cli import main
from gad_ray.health import RULES

FIXTURES = Path(__file__).parent / "health" / "fixtures"
SILENT, OVERCONFIDENT, HEALTHY = (str(FIXTURES / f"run-{run}.jsonl") for run in "eab")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["diagnose", *arguments])
    return int(left.value.code or 0)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_table_shows_rule_steps_evidence_overrides_and_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(OVERCONFIDENT) == 0
    shown = capsys.readouterr().out
    for part in (
        "critic-overconfident",
        "49–49 (1)",
        "d_acc 0.935, score_diff 9.81",
        "judged on 1 of 5 steps",
        "critic.loss.temperature.value=5.0",
        "# critic-overconfident, scores-too-far-apart, loss-saturated",
        "+ The critic's gradient norm is healthy",
        "verdict: not healthy: critic-overconfident",
    ):
        assert part in shown


def test_the_table_can_be_had_in_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(HEALTHY, "--lang", "zh") == 0
    assert "结论：预热健康，可以进入对抗阶段" in capsys.readouterr().out


def test_json_is_a_list_of_what_fired_with_exactly_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(OVERCONFIDENT, "--json") == 0
    fired = json.loads(capsys.readouterr().out)
    assert {item["rule"] for item in fired} == {
        "critic-overconfident",
        "scores-too-far-apart",
        "loss-saturated",
        "extreme-scores",
    }
    for item in fired:
        assert list(item) == ["rule", "severity", "steps", "evidence", "meaning", "advice"]
        assert item["severity"] == "warning"
        assert item["steps"] == [49]
        assert item["advice"]
    assert run(HEALTHY, "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("source", "fail_on", "code"),
    [
        (SILENT, "never", 0),
        (SILENT, "critical", 1),
        (SILENT, "warning", 1),
        (OVERCONFIDENT, "critical", 0),
        (OVERCONFIDENT, "warning", 1),
        (HEALTHY, "warning", 0),
    ],
)
def test_the_exit_code_tells_of_rules_only_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], source: str, fail_on: str, code: int
) -> None:
    assert run(source, "--fail-on", fail_on) == code
    capsys.readouterr()


def test_all_rules_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--rules") == 0
    page = capsys.readouterr().out
    assert all(f"| `{rule.name}` |" in page for rule in RULES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to diagnose"),
        (("missing.jsonl",), "no such file"),
        (("no-such-run",), "no run is called"),
        ((HEALTHY, "--lang", "fr"), "one of: en, zh"),
        ((HEALTHY, "--stage", "game"), "one of: warmup, adversarial"),
        ((HEALTHY, "--fail-on", "all"), "one of: never, warning, critical"),
        ((HEALTHY, "--facts", "missing.json"), "cannot be read"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_a_mend(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
