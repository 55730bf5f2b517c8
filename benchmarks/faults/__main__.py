"""``python -m benchmarks.faults``: the study of the health rules."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.faults.catalogue import CASES, choose
from benchmarks.faults.page import study_page, summary
from benchmarks.faults.study import BASE, FaultStudy
from benchmarks.faults.tables import fault_table, healthy_table, rule_table
from gad_ray.activity import doing, tells
from gad_ray.cli import run
from gad_ray.cli.bench import shown
from gad_ray.observability.files import write_text

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="CASE", help="Only these; left out: all of them.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where runs and figures go.")] = Path(
        "runs/bench-faults"
    ),
    show: Annotated[bool, typer.Option("--list", help="List the cases and run none.")] = False,
    base: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recipe of the healthy run, in place of the study's.")
    ] = None,
    docs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables there as a page.")
    ] = None,
) -> None:
    """Short real runs made sick in many ways: which health rule names the fault, how soon, and what is a false alarm."""
    if show:
        list_faults()
    else:
        study(cases or [], out=out, base=base, docs=docs)


@tells
def study(names: Sequence[str], *, out: Path, base: Path | None, docs: Path | None) -> None:
    """Run the study of injected faults, and print its tables.

    Args:
        names: Cases to run; all when empty.
        out: Directory to write to; what is finished there is not repeated.
        base: Recipe of the healthy run in place of the study's own.
        docs: File to write as a page to read; none when absent.

    Raises:
        GadError: If a case is not known, or nothing can be run.
    """
    faults = FaultStudy(cases=choose(names), out=out.resolve(), base=base or BASE, tell=doing)
    verdicts = faults.run()
    console = Console(highlight=False)
    for title, (head, *rows) in (
        ("faults", fault_table(verdicts)),
        ("healthy runs", healthy_table(verdicts)),
        ("rules", rule_table(verdicts)),
    ):
        if rows:
            console.print(shown(title, head, rows))
    for line in summary(verdicts):
        console.print(line, soft_wrap=True)
    if docs is not None:
        write_text(docs, study_page(verdicts, num_cores=len(os.sched_getaffinity(0))))
        console.print(f"page: {docs}", soft_wrap=True)
    console.print(f"figures: {faults.out / 'faults.json'}", soft_wrap=True)


def list_faults() -> None:
    """Print all cases of the study of injected faults."""
    shown = Table("case", "what is done", "named by")
    for case in CASES.values():
        names = [*case.named_by, *(["an error"] if case.refused_with else [])]
        names += ["the quarantine"] if case.quarantined else []
        shown.add_row(case.name, case.done, ", ".join(names) or "nothing: it is healthy")
    Console(highlight=False).print(shown)


if __name__ == "__main__":
    run(app, "python -m benchmarks.faults")
