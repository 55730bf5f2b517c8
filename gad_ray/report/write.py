"""Report files: written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gad_ray.errors import ConfigError
from gad_ray.observability.files import write_text
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.report.page import comparison_page, run_page
from gad_ray.report.view import find_view, load_view


def write_report(root: Path, out: Path | None = None) -> Path:
    """Write the report of the run in a directory.

    Args:
        root: The run's directory.
        out: The file to write; ``report.html`` in the directory when None.

    Returns:
        The file.

    Raises:
        ConfigError: If there is no such directory, or the file cannot be written.
    """
    return _write(out or RunDirectory(root=root).report_html, run_page(load_view(root)))


def write_reports(runs: Sequence[str], *, out: Path | None, directory: str | Path = "runs") -> Path:
    """Write the report of one run, or one that compares several.

    Args:
        runs: Names or paths.
        out: The file to write; when None, ``report.html`` in the one run's directory, or ``comparison.html`` here.
        directory: Where runs of a name are looked for.

    Returns:
        The file.

    Raises:
        ConfigError: If a run does not exist, or the file cannot be written.
    """
    views = [find_view(run, directory) for run in runs]
    if len(views) == 1:
        return _write(out or RunDirectory(root=views[0].root).report_html, run_page(views[0]))
    return _write(out or Path("comparison.html"), comparison_page(views))


def _write(path: Path, page: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            hint="name another file with --out",
        ) from None
    return path
