"""``gad-ray data report``: what is wrong with data, on the terminal, as HTML and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import cast, get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gad_ray.activity import activity, telling, waiting
from gad_ray.config.data import ColumnRole, Thoughts
from gad_ray.data.layout import Layout
from gad_ray.errors import ConfigError, DataError
from gad_ray.findings import Severity
from gad_ray.quality.findings import DataFinding
from gad_ray.quality.html import render_html
from gad_ray.quality.report import QualityReport, make_report
from gad_ray.quality.settings import ReportSettings
from gad_ray.quality.terminal import print_report

_STANDARD = "-"


def report_on_data(settings: ReportSettings, *, out: Path | None, as_json: str | None, strict: bool) -> int:
    """Make a report and show it.

    Args:
        settings: What to look at.
        out: HTML file to write.
        as_json: JSON file to write; ``-`` for standard output, in place of the tables.
        strict: Whether critical findings make the exit code 1.

    Returns:
        The exit code.

    Raises:
        GadError: As ``make_report`` raises it, or if a file cannot be written.
    """
    for path in (out, None if as_json in {None, _STANDARD} else Path(cast("str", as_json))):
        if path is not None and not path.parent.is_dir():  # before minutes are spent
            raise DataError(
                f"cannot be written: there is no directory {str(path.parent)!r}",
                where=str(path),
                hint="make it first",
            )
    report = _make(settings)
    if as_json is not None:
        text = json.dumps(report_as_json(report), ensure_ascii=False, indent=1, allow_nan=False)
        if as_json == _STANDARD:
            Console(highlight=False, markup=False).out(text)
        else:
            _write(Path(as_json), text)
    if as_json != _STANDARD:
        console = Console(highlight=False)
        print_report(report, console)
        if out is not None:
            console.print(f"report: {out}", soft_wrap=True, markup=False)
    if out is not None:
        _write(out, render_html(report, made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"))
    return int(strict and any(finding.severity is Severity.CRITICAL for finding in report.findings))


def report_as_json(report: QualityReport) -> dict[str, object]:
    """Everything that a report says, as values of JSON; what is not a number is null."""
    return {
        "verdict": report.verdict,
        "findings": [_told(finding) for finding in report.findings],
        "figures": _plain(asdict(report.figures)),
    }


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in cast("list[object]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _make(settings: ReportSettings) -> QualityReport:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    told = ""
    with (
        telling() as teller,
        activity("looking at the data", told=not console.is_terminal),
        waiting(lambda: told),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        teller.shown = console.is_terminal
        task = bar.add_task("rows", total=None, done="")

        def show(what: str, done: int, total: int | None) -> None:
            nonlocal told
            shown = f"{done:,}" if total is None else f"{done:,} of {total:,}"
            told = f"{what}, {shown} done" if done else what
            bar.update(task, description=what, completed=done, total=total, done=shown if done else "")

        return make_report(settings, on_progress=show)


def _told(finding: DataFinding) -> object:
    """A finding under the names that programs know."""
    told = asdict(finding)
    hints = told.pop("hints")
    return _plain({**told, "advice": hints})


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DataError(
            f"cannot be written: {error.strerror or error}", where=str(path), hint="check the path"
        ) from error


def layout_from(columns: Iterable[str], thoughts: str) -> Layout:
    """What the command line says about columns and thoughts.

    Raises:
        ConfigError: For what is no NAME=ROLE, no role, or nothing that can be done with thoughts.
    """
    mapped: dict[str, ColumnRole] = {}
    for given in columns:
        name, _, role = given.rpartition("=")
        if not name or role not in get_args(ColumnRole):
            raise ConfigError(
                f"{given!r} does not say what a column is",
                where="--column",
                hint=f"write NAME=ROLE, with a role of {', '.join(get_args(ColumnRole))}",
            )
        mapped[name] = cast("ColumnRole", role)
    if thoughts not in get_args(Thoughts):
        raise ConfigError(
            f"{thoughts!r} cannot be done with thoughts", where="--thoughts", hint="refuse, strip or keep"
        )
    return Layout(columns=mapped, thoughts=cast("Thoughts", thoughts))
