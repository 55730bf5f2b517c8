"""A report on the terminal: verdict, findings, tables. What the data say is shown as text, never as markup."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gad_ray.findings import print_finding
from gad_ray.quality.report import QualityReport
from gad_ray.quality.samples import Sample
from gad_ray.quality.tables import TextTable, tables_of

_SAMPLES = 2
_SAMPLE_CHARACTERS = 160


def print_report(report: QualityReport, console: Console) -> None:
    """Print a report.

    Args:
        report: What to print.
        console: Where.
    """
    for table in tables_of(report.figures):
        _print_table(table, console)
    if report.figures.comparison is None:
        console.print(
            Text(
                "No answers of a student: what tells teacher from student was not looked at. Give --policy MODEL, or "
                "files with a student_response.",
                style="dim",
            )
        )
    console.print()
    for finding in report.findings:
        print_finding(finding, console, more=[_sample(sample) for sample in finding.samples[:_SAMPLES]])
        console.print()
    console.print(Text(report.verdict, style="bold"))


def _print_table(table: TextTable, console: Console) -> None:
    shown = Table(title=Text(table.title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, name in enumerate(table.head):
        shown.add_column(Text(name), justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    console.print()
    console.print(shown)
    if table.note:
        console.print(Text(table.note, style="dim"))


def _sample(sample: Sample) -> Text:
    parts = [part for part in (sample.note, _quoted(sample.prompt), _quoted(sample.answer)) if part]
    return Text(f"{sample.place}: {' | '.join(parts)}", style="dim")


def _quoted(text: str) -> str:
    """The end of a sample's text on one line: there it was cut, if it was."""
    line = " ".join(text.split())
    return line if len(line) <= _SAMPLE_CHARACTERS else f"… {line[-_SAMPLE_CHARACTERS:]}"
