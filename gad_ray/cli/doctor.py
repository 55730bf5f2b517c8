"""``gad-ray doctor``: what this machine has, as lines or as JSON."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gad_ray.cli.arguments import Json, say
from gad_ray.findings import Severity, print_finding

_VERDICTS = {Severity.OK: "ok", Severity.WARNING: "warn", Severity.CRITICAL: "fail"}
"""What programs that read the JSON know."""


def doctor(
    as_json: Json = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also import the big packages and use them once.")
    ] = False,
) -> None:
    """Say what this machine has, what it lacks, and what to do about it."""
    from rich.console import Console

    from gad_ray.doctor import examine

    findings = examine(deep=deep)
    failed = any(finding.severity is Severity.CRITICAL for finding in findings)
    if as_json:
        told = [
            {
                "name": finding.rule,
                "verdict": _VERDICTS[finding.severity],
                "found": finding.evidence,
                "hint": finding.hints[0] if finding.hints else None,
            }
            for finding in findings
        ]
        say(json.dumps({"ok": not failed, "findings": told}, indent=1, ensure_ascii=False))
        raise typer.Exit(int(failed))
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        print_finding(finding, console, severity=_VERDICTS[finding.severity])
    raise typer.Exit(int(failed))
