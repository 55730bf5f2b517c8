"""What a report has to say: the rules that hold for some data, with figures and rows."""

from __future__ import annotations

from dataclasses import dataclass

from gad_ray.quality.figures import Figures
from gad_ray.quality.rules import RULES, Rule, Severity
from gad_ray.quality.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that holds for some data.

    Attributes:
        rule: The rule's name.
        severity: How bad it is.
        value: What was judged.
        evidence: The figures, in words.
        meaning: What it means.
        advice: What to do about it.
        overrides: Settings that answer it, made concrete for these data where that can be.
        samples: Rows that show it.
    """

    rule: str
    severity: Severity
    value: float
    evidence: str
    meaning: str
    advice: tuple[str, ...]
    overrides: tuple[str, ...]
    samples: tuple[Sample, ...]


def judge(figures: Figures) -> tuple[Finding, ...]:
    """The rules that hold, the most severe first."""
    found: list[Finding] = []
    for rule in RULES:
        measured = rule.measure(figures)
        if measured is None or (severity := _severity(rule, measured.value)) is None:
            continue
        found.append(
            Finding(
                rule=rule.name,
                severity=severity,
                value=measured.value,
                evidence=measured.evidence,
                meaning=rule.meaning,
                advice=rule.advice,
                overrides=(*measured.overrides, *rule.overrides),
                samples=measured.samples,
            )
        )
    order = list(Severity)
    return tuple(sorted(found, key=lambda finding: -order.index(finding.severity)))


def _severity(rule: Rule, value: float) -> Severity | None:
    for severity, limit in (
        (Severity.CRITICAL, rule.critical),
        (Severity.WARNING, rule.warning),
        (Severity.NOTE, rule.note),
    ):
        if limit is not None and value >= limit:
            return severity
    return None
