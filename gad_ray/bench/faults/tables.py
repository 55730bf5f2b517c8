"""The tables of the study: a row a case, and a row a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gad_ray.bench.faults.verdict import AN_ERROR, THE_QUARANTINE, Verdict
from gad_ray.health import RULES

Table = list[list[str]]
"""Rows of text, the head first."""


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
    for rule in RULES:

        def symptom(v: Verdict, name: str = rule.name) -> bool:
            return name in v.case.symptoms

        def names(v: Verdict, name: str = rule.name) -> bool:
            return name in v.case.named_by

        def neither(v: Verdict, name: str = rule.name) -> bool:
            return name not in v.case.symptoms and name not in v.case.named_by

        def rightly(v: Verdict, name: str = rule.name) -> bool:
            return name in v.fired and name not in v.false_alarms

        def falsely(v: Verdict, name: str = rule.name) -> bool:
            return name in v.false_alarms

        rows.append(
            [
                rule.name,
                rule.severity.value,
                _share(verdicts, names, rightly),
                _share(verdicts, symptom, rightly),
                _share(verdicts, neither, falsely),
                _share(verdicts, lambda v: v.case.healthy, falsely),
            ]
        )
    for name, may in (
        (AN_ERROR, lambda v: v.case.refused_with is not None),
        (THE_QUARANTINE, lambda v: v.case.quarantined is not None),
    ):
        found: Callable[[Verdict], bool] = lambda v, name=name: v.named_by == name  # noqa: E731
        rows.append([name, "", _share(verdicts, may, found), "–", "–", "–"])
    return rows


def _share(
    verdicts: Sequence[Verdict], where: Callable[[Verdict], bool], fired: Callable[[Verdict], bool]
) -> str:
    among = [verdict for verdict in verdicts if where(verdict)]
    return f"{sum(map(fired, among))} of {len(among)}" if among else "–"


def _severe(verdict: Verdict, names: Sequence[str]) -> str:
    """Names in a line, those of severity critical marked."""
    return ", ".join(f"{name} (!)" if name in verdict.critical else name for name in names)
