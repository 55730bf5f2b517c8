"""What a report has to say: the rules that hold for some data, with figures and rows."""

from __future__ import annotations

from dataclasses import dataclass

from gad_ray.findings import Finding, Severity, worst_first
from gad_ray.quality.figures import Figures
from gad_ray.quality.rules import RULES, Rule
from gad_ray.quality.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFinding(Finding):
    """A rule that holds for some data.

    Attributes:
        value: What was judged.
        samples: Rows that show it.
    """

    value: float
    samples: tuple[Sample, ...]


def judge(figures: Figures) -> tuple[DataFinding, ...]:
    """The rules that hold, the most severe first."""
    found: list[DataFinding] = []
    for rule in RULES:
        measured = rule.measure(figures)
        if measured is None or (severity := _severity(rule, measured.value)) is None:
            continue
        found.append(
            DataFinding(
                rule=rule.name,
                severity=severity,
                value=measured.value,
                evidence=measured.evidence,
                meaning=rule.meaning,
                hints=rule.hints,
                overrides=(*measured.overrides, *rule.overrides),
                samples=measured.samples,
            )
        )
    return tuple(worst_first(found))


def _severity(rule: Rule, value: float) -> Severity | None:
    for severity, limit in (
        (Severity.CRITICAL, rule.critical),
        (Severity.WARNING, rule.warning),
        (Severity.NOTE, rule.note),
    ):
        if limit is not None and value >= limit:
            return severity
    return None
