"""``gad-ray report``: a run, or several, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gad_ray.cli.arguments import say


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN …", help="Names or paths; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="RUN/report.html when left out, or comparison.html here."),
    ] = None,
) -> None:
    """Write what a run has come to, or how several compare, as one HTML file that needs no network."""
    from gad_ray.report import write_reports

    path = write_reports(runs, out=out)
    # Never wrapped: a path is there to be copied.
    say(f"{path}  ({path.stat().st_size / 2**20:.1f} MiB)")
