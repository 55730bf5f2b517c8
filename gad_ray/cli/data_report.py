"""``gad-ray data report``: what is wrong with data, on the terminal, as HTML and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from gad_ray.activity import activity, telling, waiting
from gad_ray.errors import ConfigError, DataError
from gad_ray.findings import Severity
from gad_ray.observability.jsonl import json_values

if TYPE_CHECKING:
    from gad_ray.data.layout import Layout
    from gad_ray.quality.findings import DataFinding
    from gad_ray.quality.report import QualityReport
    from gad_ray.quality.settings import ReportSettings

_STANDARD = "-"


def data_report(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="Parquet or JSONL, globs, package:NAME, or a run's records."),
    ],
    policy: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The student: counts tokens, and answers where rows do not."),
    ] = None,
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An exported critic, to score both sides.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option(metavar="FILES", help="Held-out rows to look for; may be repeated.")
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, max=100_000, help="Prompts to be answered by the policy or scored.")
    ] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the policy.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="Sampling; 0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Nucleus mass.")] = 1.0,
    engine: Annotated[
        str, typer.Option(metavar="auto|vllm|transformers", help="What the policy answers with.")
    ] = "auto",
    chat_template: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="The policy's, where its own is not meant.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ROLE", help="What a column is, as data.columns says it; may be repeated."),
    ] = None,
    thoughts: Annotated[
        str, typer.Option(metavar="refuse|strip|keep", help="A teacher's <think> blocks, as data.thoughts.")
    ] = "refuse",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of draws and intervals.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="HTML", help="Write the report as one page.")] = None,
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write all figures and findings.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a finding is critical.")] = False,
) -> None:
    """Say what is wrong with data: rows, text, duplicates, and what tells teacher from student without reading."""
    from rich.console import Console

    from gad_ray.quality.html import render_html
    from gad_ray.quality.settings import PolicySettings, ReportSettings
    from gad_ray.quality.terminal import print_report

    student = policy and PolicySettings(
        model=policy,
        chat_template=chat_template,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        engine=engine,
    )
    settings = ReportSettings(
        files=tuple(files),
        heldout=tuple(heldout or ()),
        policy=student or None,
        critic=critic,
        num_drawn=sample,
        seed=seed,
        layout=layout_from(column or (), thoughts),
    )
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
    if strict and any(finding.severity is Severity.CRITICAL for finding in report.findings):
        raise typer.Exit(1)


def report_as_json(report: QualityReport) -> dict[str, object]:
    """Everything that a report says, as values of JSON; what is not a number is null."""
    return {
        "verdict": report.verdict,
        "findings": [_told(finding) for finding in report.findings],
        "figures": json_values(asdict(report.figures)),
    }


def _make(settings: ReportSettings) -> QualityReport:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from gad_ray.quality.report import make_report

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
    return json_values({**told, "advice": hints})


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
    from gad_ray.config.data import ColumnRole, Thoughts
    from gad_ray.data.layout import Layout

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
