"""Whether a case was named, by what and how soon, and which alarms beside that were false."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.faults.case import Case
from benchmarks.faults.evidence import Alarm, Evidence

AN_ERROR = "an error that ends the run"
THE_QUARANTINE = "the quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a case.

    Attributes:
        case: The case.
        evidence: What its run left.
        named_by: The rule, or :data:`AN_ERROR` or :data:`THE_QUARANTINE`, that named the fault first; None if none did.
        after: Steps from the fault's first to the one with which it was named, both counted; 0: before any step.
        company: What was right beside it: rules that fired, and an error that ended the run.
        false_alarms: Rules that fired and should not have.
        failed: The run did not come to its end, and nothing had named a fault.
    """

    case: Case
    evidence: Evidence
    named_by: str | None
    after: int | None
    company: tuple[str, ...]
    false_alarms: tuple[str, ...]
    failed: bool

    @property
    def critical(self) -> tuple[str, ...]:
        """Rules of severity critical that fired, rightly or not."""
        return _rules([a for a in self.evidence.alarms if a.severity == "critical"])

    @property
    def rightly(self) -> tuple[str, ...]:
        """Rules that fired and should have."""
        return tuple(rule for rule in _rules(self.evidence.alarms) if rule not in self.false_alarms)


def judge(case: Case, evidence: Evidence) -> Verdict:
    """The verdict on a case, from what its run left."""
    named = sorted(_names(case, evidence), key=lambda entry: entry[0])
    named_by, after = (named[0][1], named[0][0]) if named else (None, None)
    right = {*case.named_by, *case.symptoms}
    early = {alarm.rule for alarm in evidence.alarms if alarm.step < case.begins}
    fired = _rules(evidence.alarms)
    company = [rule for rule in fired if rule in right and rule not in early and rule != named_by]
    ended = evidence.exit_code != 0
    if ended and named_by not in (None, AN_ERROR):
        company.append(AN_ERROR)
    return Verdict(
        case=case,
        evidence=evidence,
        named_by=named_by,
        after=after,
        company=tuple(company),
        false_alarms=tuple(rule for rule in fired if rule not in right or rule in early),
        failed=ended and named_by is None,
    )


def _names(case: Case, evidence: Evidence) -> Iterator[tuple[int, str]]:
    """What names the fault, each with the steps it took; of equals the likelier name comes first."""
    for rule in case.named_by:
        for alarm in evidence.alarms:
            if alarm.rule == rule and alarm.step >= case.begins:
                yield alarm.step - case.begins + 1, rule
    if case.refused_with is not None and case.refused_with in evidence.error:
        # It was raised in the step after the last one that was done.
        yield 0 if evidence.steps == 0 else evidence.steps + 2 - case.begins, AN_ERROR
    if case.quarantined is not None and case.quarantined in evidence.quarantined:
        yield 0, THE_QUARANTINE


def _rules(alarms: Sequence[Alarm]) -> tuple[str, ...]:
    """Each rule once, in the order in which they first fired."""
    return tuple(dict.fromkeys(alarm.rule for alarm in alarms))
