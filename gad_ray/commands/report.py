"""``gad-ray report``: a run, or several, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gad_ray.report import write_reports


def write(runs: Sequence[str], out: Path | None) -> None:
    """Write the report of one run, or the comparison of several, and say where.

    Args:
        runs: Names under ``runs``, or paths.
        out: The file; a place of its own when None.

    Raises:
        ConfigError: If a run does not exist, or the file cannot be written.
    """
    path = write_reports(runs, out=out)
    size = path.stat().st_size / 2**20
    # Never wrapped: a path is there to be copied.
    Console(highlight=False).print(Text(f"{path}  ({size:.1f} MiB)"), soft_wrap=True)
