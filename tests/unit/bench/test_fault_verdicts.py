"""From what a run left to a verdict, the tables and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.faults.case import Case
from benchmarks.faults.catalogue import CASES, choose
from benchmarks.faults.evidence import Alarm, Evidence
from benchmarks.faults.page import study_page, summary
from benchmarks.faults.study import BASE
from benchmarks.faults.tables import fault_table, healthy_table, rule_table
from benchmarks.faults.verdict import AN_ERROR, THE_QUARANTINE, Verdict, judge
from gad_ray.config import load_config
from gad_ray.errors import ConfigError
from gad_ray.health import RULES
from gad_ray.observability.run_dir import RunDirectory

SICK = Case(
    name="blunt",
    done="something",
    warmup=4,
    game=8,
    since="game",
    named_by=("loss-saturated", "gradient-explosion"),
    symptoms=("extreme-scores",),
)
HEALTHY = Case(name="well", done="as it is")
QUIET = Evidence(exit_code=0, seconds=90.0, steps=12, alarms=(), error="", quarantined={})


def alarm(rule: str, step: int, severity: str = "warning") -> Alarm:
    return Alarm(rule=rule, severity=severity, stage="adversarial", step=step)


def verdict(case: Case, *alarms: Alarm, **changed: object) -> Verdict:
    return judge(case, replace(QUIET, alarms=alarms, **changed))


# -- verdicts -----------------------------------------------------------------------------------------


def test_a_fault_is_named_by_the_first_of_its_rules_counted_from_where_it_begins() -> None:
    found = verdict(
        SICK, alarm("extreme-scores", 6), alarm("gradient-explosion", 7), alarm("loss-saturated", 9)
    )
    assert (found.named_by, found.after) == ("gradient-explosion", 3)
    assert found.company == ("extreme-scores", "loss-saturated")
    assert found.false_alarms == ()


def test_of_two_rules_in_one_step_the_likelier_name_is_told() -> None:
    found = verdict(SICK, alarm("gradient-explosion", 5), alarm("loss-saturated", 5))
    assert (found.named_by, found.after) == ("loss-saturated", 1)


def test_what_fires_before_the_fault_begins_is_a_false_alarm_whatever_it_says() -> None:
    found = verdict(SICK, alarm("loss-saturated", 4), alarm("extreme-scores", 3))
    assert found.named_by is None
    assert set(found.false_alarms) == {"loss-saturated", "extreme-scores"}
    late = verdict(SICK, alarm("loss-saturated", 4), alarm("loss-saturated", 6))
    assert (late.named_by, late.after, late.false_alarms) == ("loss-saturated", 2, ("loss-saturated",))


def test_a_rule_that_neither_names_nor_goes_with_a_fault_is_a_false_alarm() -> None:
    found = verdict(SICK, alarm("loss-saturated", 5), alarm("stalled", 6), alarm("stalled", 9))
    assert found.false_alarms == ("stalled",)


def test_every_alarm_in_a_healthy_run_is_false() -> None:
    found = verdict(HEALTHY, alarm("length-collapse", 7, "critical"), alarm("critic-blind", 5))
    assert HEALTHY.healthy
    assert found.false_alarms == ("length-collapse", "critic-blind")
    assert found.critical == ("length-collapse",)


@pytest.mark.parametrize(("steps", "since", "after"), [(0, "start", 0), (3, 4, 1), (5, 4, 3)])
def test_an_error_names_a_fault_by_its_words_in_the_step_in_which_it_is_raised(
    steps: int, since: int, after: int
) -> None:
    case = Case(name="nan", done="", since=since, refused_with="not finite")
    found = verdict(case, exit_code=1, steps=steps, error="1 of 9 pairs have a score that is not finite")
    assert (found.named_by, found.after, found.failed) == (AN_ERROR, after, False)


def test_another_error_names_nothing_and_the_run_has_failed() -> None:
    case = Case(name="nan", done="", refused_with="not finite")
    found = verdict(case, exit_code=1, error="the disk is full")
    assert (found.named_by, found.failed) == (None, True)
    assert verdict(HEALTHY, exit_code=None).failed


def test_a_run_that_ends_after_its_fault_was_named_has_not_failed() -> None:
    found = verdict(SICK, alarm("loss-saturated", 5), exit_code=1, error="gone")
    assert (found.named_by, found.company, found.failed) == ("loss-saturated", (AN_ERROR,), False)


def test_the_quarantine_names_a_fault_before_any_step() -> None:
    case = Case(name="shared", done="", quarantined="heldout_prompt")
    found = verdict(case, quarantined={"heldout_prompt": 16})
    assert (found.named_by, found.after) == (THE_QUARANTINE, 0)
    assert verdict(case, quarantined={"long_prompt": 2}).named_by is None


# -- evidence -----------------------------------------------------------------------------------------


def test_evidence_is_read_from_what_a_run_leaves(tmp_path: Path) -> None:
    directory, log = RunDirectory(root=tmp_path / "run"), tmp_path / "log"
    directory.root.mkdir()
    directory.metrics_jsonl.write_text('{"step": 1}\n{"step": 2}\n')
    health = {"event": "health", "rule": "stalled", "severity": "warning", "stage": "warmup", "step": 2}
    events = [health, {"event": "failed", "error": "gone"}]
    directory.events_jsonl.write_text("".join(json.dumps(event) + "\n" for event in events))
    directory.quarantine_jsonl.write_text('{"reason": "long_prompt"}\n{"reason": "long_prompt"}\n')
    log.write_text("warmup 1/2 …\nno error: this\nerror: where: gone\n  → come back\n")
    found = Evidence.of_run(directory, log, exit_code=1, seconds=3.0)
    assert found == Evidence(
        exit_code=1,
        seconds=3.0,
        steps=2,
        alarms=(Alarm(rule="stalled", severity="warning", stage="warmup", step=2),),
        error="where: gone\n  → come back",
        quarantined={"long_prompt": 2},
    )
    assert Evidence.of_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_run_that_never_began_leaves_its_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("error: no row is left to train on\n")
    found = Evidence.of_run(RunDirectory(root=tmp_path / "none"), log, exit_code=2, seconds=1.0)
    assert (found.steps, found.alarms, found.quarantined) == (0, (), {})
    assert found.error == "no row is left to train on"


# -- tables and page ----------------------------------------------------------------------------------

VERDICTS = [
    verdict(
        SICK, alarm("gradient-explosion", 7, "critical"), alarm("extreme-scores", 8), alarm("stalled", 9)
    ),
    verdict(replace(SICK, name="late", symptoms=()), alarm("loss-saturated", 26)),
    verdict(replace(SICK, name="unseen")),
    verdict(HEALTHY, alarm("extreme-scores", 6)),
    verdict(replace(HEALTHY, name="better")),
]


def test_a_fault_is_tabled_with_its_name_its_company_and_its_false_alarms() -> None:
    head, *rows = fault_table(VERDICTS)
    assert len(head) == 6
    assert rows == [
        ["blunt", "something", "gradient-explosion (!)", "3", "extreme-scores", "stalled"],
        ["late", "something", "loss-saturated", "22", "", ""],
        ["unseen", "something", "not named", "", "", ""],
    ]


def test_a_healthy_run_is_tabled_with_its_alarms() -> None:
    assert healthy_table(VERDICTS)[1:] == [
        ["well", "as it is", "12", "extreme-scores", "none"],
        ["better", "as it is", "12", "none", "none"],
    ]


def test_a_rule_is_counted_where_it_names_where_it_is_a_symptom_and_where_it_is_false() -> None:
    rows = {row[0]: row[1:] for row in rule_table(VERDICTS)[1:]}
    assert set(rows) == {*(rule.name for rule in RULES), AN_ERROR, THE_QUARANTINE}
    assert rows["gradient-explosion"] == ["critical", "1 of 3", "–", "0 of 2", "0 of 2"]
    # A symptom of two of the faults; false in the third or in a healthy run.
    assert rows["extreme-scores"] == ["warning", "–", "1 of 2", "1 of 3", "1 of 2"]
    assert rows["stalled"] == ["warning", "–", "–", "1 of 5", "0 of 2"]
    assert rows[AN_ERROR] == ["", "–", "–", "–", "–"]


def test_the_summary_counts_what_was_named_in_time_and_names_what_was_not() -> None:
    assert summary(VERDICTS) == [
        "1 of 3 faults were named within 20 steps.",
        "Not named within 20 steps: late, unseen.",
        "Of 2 healthy runs 0 had an alarm of severity critical, 1 any at all.",
    ]
    failed = verdict(HEALTHY, exit_code=1, error="gone")
    assert "Ended in another way than the fault's: well." in summary([failed])


def test_the_page_holds_the_tables_and_what_they_come_to() -> None:
    page = study_page(VERDICTS, num_cores=2)
    (left_out,) = [line for line in page.splitlines() if "were not run" in line]
    assert "blend-pooling" in left_out
    assert "- 1 of 3 faults were named within 20 steps.\n" in page
    assert "- 5 runs, 8 minutes together, on 2 cores.\n" in page
    assert "| blunt | something | gradient-explosion (!) | 3 | extreme-scores | stalled |" in page
    assert page.count("\n| --- |") == 3
    alone = study_page(VERDICTS[-1:], num_cores=2)
    assert "## Faults" not in alone


# -- the catalogue ------------------------------------------------------------------------------------


def test_there_are_enough_faults_and_enough_healthy_runs() -> None:
    assert sum(not case.healthy for case in CASES.values()) >= 18
    assert sum(case.healthy for case in CASES.values()) >= 6
    assert [case.name for case in choose(["seed-0", "deaf-engine"])] == ["deaf-engine", "seed-0"]
    with pytest.raises(ConfigError, match="no case is called 'flat-battery'"):
        choose(["flat-battery"])


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_a_case_is_a_valid_run_and_can_be_named_within_its_steps(case: Case) -> None:
    config = load_config(str(BASE), case.settings)
    assert config.stages.warmup.steps == case.warmup
    rules = {rule.name: rule for rule in RULES}
    assert {*case.named_by, *case.symptoms} <= set(rules)
    assert not set(case.named_by) & set(case.symptoms)
    if case.healthy:
        assert case.warmup + case.game >= 20
    if case.named_by:
        first = rules[case.named_by[0]]
        length = case.warmup if case.since != "game" and case.game == 0 else case.game
        assert case.begins <= case.warmup + case.game
        assert first.steps(33) <= max(length, case.warmup)
