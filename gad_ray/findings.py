"""A finding: what was looked at, how bad it is, what that means and what mends it.

The health rules, the quality of data, the doctor and the dry run all report these, and they are printed in one way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class Severity(StrEnum):
    """How bad a finding is, from nothing to the worst."""

    OK = "ok"
    """Looked at, and fine."""
    NOTE = "note"
    """Worth knowing."""
    WARNING = "warning"
    """What is run is worth less than it could be."""
    CRITICAL = "critical"
    """What is run is worth nothing, or cannot be run."""

    @property
    def rank(self) -> int:
        """Place in that order, from 0 on."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        rule: Name of what was looked for, in kebab-case or as a reader calls it.
        severity: How bad it is.
        evidence: What was measured or seen, in words.
        meaning: What it means.
        hints: What to do about it, in words, most promising first.
        overrides: Settings that answer it, as ``key=value``; each is worth trying on its own.
    """

    rule: str
    severity: Severity
    evidence: str
    meaning: str = ""
    hints: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


F = TypeVar("F", bound=Finding)

_STYLES = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.WARNING: "yellow",
    Severity.CRITICAL: "bold red",
}
_INDENT = 9


def worst_first(findings: Iterable[F]) -> list[F]:
    """The most severe ones first, else in the order given."""
    return sorted(findings, key=lambda finding: -finding.severity.rank)


def print_finding(
    finding: Finding,
    console: Console,
    *,
    severity: str | None = None,
    more: Sequence[str | Text] = (),
    with_overrides: bool = True,
) -> None:
    """Print a finding: a line that says what it is, and below it what it means and what mends it.

    Args:
        finding: What to print; it is shown as text, never as markup.
        console: Where.
        severity: Its severity in the reader's language; the English word when None.
        more: Further lines, below what it means.
        with_overrides: Whether its overrides are printed with it.
    """
    from rich.padding import Padding
    from rich.text import Text

    def line(text: Any) -> None:
        console.print(Padding(text if isinstance(text, Text) else Text(text), (0, 0, 0, _INDENT)))

    word = severity or finding.severity.value
    head = Text.assemble((f"{word:{_INDENT - 1}} ", _STYLES[finding.severity]), (finding.rule, "bold"))
    console.print(head.append(f": {finding.evidence}") if finding.evidence else head)
    for text in (finding.meaning, *more):
        if text:
            line(text)
    for hint in finding.hints:
        line(f"→ {hint}")
    for override in finding.overrides if with_overrides else ():
        line(Text.assemble("→ ", (override, "green")))
