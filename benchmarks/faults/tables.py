"""The tables of the study: a row a case, and a row a rule."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.faults.verdict import AN_ERROR, THE_QUARANTINE, Verdict
from gad_ray.health import RULES, Rule

Table = list[list[str]]
"""Rows of text, the head first."""

_NONE = "–"


def fault_table(verdicts: Sequence[Verdict]) -> Table:
    """Every fault: what was done, what named it and how soon, and what fired besides."""
    rows = [["fault", "what is done", "named by", "after steps", "other rules", "false alarms"]]
    for verdict in verdicts:
        if verdict.case.healthy:
            continue
        named = verdict.named_by or ("the run failed" if verdict.failed else "not named")
        rows.append(
            [
                verdict.case.name,
                verdict.case.done,
                _severe(verdict, [named]),
                "" if verdict.after is None else str(verdict.after),
                _severe(verdict, verdict.company),
                _severe(verdict, verdict.false_alarms),
            ]
        )
    return rows


def healthy_table(verdicts: Sequence[Verdict]) -> Table:
    """Every healthy run: how it differs, and the alarms in it, which are all false."""
    rows = [["healthy run", "what it is", "steps", "false alarms", "of them critical"]]
    for verdict in verdicts:
        if not verdict.case.healthy:
            continue
        alarms = ", ".join(verdict.false_alarms) or "none"
        rows.append(
            [
                verdict.case.name,
                verdict.case.done,
                str(verdict.evidence.steps),
                f"the run failed: {verdict.evidence.error}" if verdict.failed else alarms,
                ", ".join(rule for rule in verdict.false_alarms if rule in verdict.critical) or "none",
            ]
        )
    return rows


def rule_table(verdicts: Sequence[Verdict]) -> Table:
    """Every rule: how often it fired in the faults that it may name, where it is a symptom, and where it is false.

    Errors and the quarantine are counted like rules.
    """
    rows = [["rule", "severity", "names the fault", "as a symptom", "false alarm", "of it healthy runs"]]
    rows += [_row_of(rule, verdicts) for rule in RULES]
    refused = [verdict for verdict in verdicts if verdict.case.refused_with is not None]
    quarantined = [verdict for verdict in verdicts if verdict.case.quarantined is not None]
    for name, among in ((AN_ERROR, refused), (THE_QUARANTINE, quarantined)):
        found = [verdict.named_by == name for verdict in among]
        rows.append([name, "", _share(found), _NONE, _NONE, _NONE])
    return rows


def _row_of(rule: Rule, verdicts: Sequence[Verdict]) -> list[str]:
    names = [v for v in verdicts if rule.name in v.case.named_by]
    symptom = [v for v in verdicts if rule.name in v.case.symptoms]
    neither = [v for v in verdicts if rule.name not in (*v.case.named_by, *v.case.symptoms)]
    return [
        rule.name,
        rule.severity.value,
        _share([rule.name in v.rightly for v in names]),
        _share([rule.name in v.rightly for v in symptom]),
        _share([rule.name in v.false_alarms for v in neither]),
        _share([rule.name in v.false_alarms for v in neither if v.case.healthy]),
    ]


def _share(found: Sequence[bool]) -> str:
    return f"{sum(found)} of {len(found)}" if found else _NONE


def _severe(verdict: Verdict, names: Sequence[str]) -> str:
    """Names in a line, those of severity critical marked."""
    return ", ".join(f"{name} (!)" if name in verdict.critical else name for name in names)
