"""``gad-ray doctor``: what this machine has, as lines or as JSON."""

from __future__ import annotations

import json

import typer

from gad_ray.doctor import examine
from gad_ray.findings import Severity, print_finding

_VERDICTS = {Severity.OK: "ok", Severity.WARNING: "warn", Severity.CRITICAL: "fail"}
"""What programs that read the JSON know."""


def report(*, as_json: bool, deep: bool) -> int:
    """Examine the machine and print what was found.

    Args:
        as_json: Print one JSON object instead of lines.
        deep: Also import the big packages.

    Returns:
        The exit code: 1 if something needed is missing, else 0.
    """
    from rich.console import Console

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
        typer.echo(json.dumps({"ok": not failed, "findings": told}, indent=1, ensure_ascii=False))
        return int(failed)
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        print_finding(finding, console, severity=_VERDICTS[finding.severity])
    return int(failed)
