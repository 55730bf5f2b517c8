"""``gad-ray doctor``: what this machine has, as lines or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from gad_ray.doctor import Finding, Verdict, examine

_COLOURS = {Verdict.OK: typer.colors.GREEN, Verdict.WARN: typer.colors.YELLOW, Verdict.FAIL: typer.colors.RED}


def report(*, as_json: bool, deep: bool) -> int:
    """Examine the machine and print what was found.

    Args:
        as_json: Print one JSON object instead of lines.
        deep: Also import the big packages.

    Returns:
        The exit code: 1 if something needed is missing, else 0.
    """
    findings = examine(deep=deep)
    failed = any(finding.verdict is Verdict.FAIL for finding in findings)
    if as_json:
        typer.echo(
            json.dumps(
                {"ok": not failed, "findings": [asdict(f) for f in findings]}, indent=1, ensure_ascii=False
            )
        )
    else:
        for finding in findings:
            _print(finding)
    return int(failed)


def _print(finding: Finding) -> None:
    verdict = typer.style(f"{finding.verdict:4}", fg=_COLOURS[finding.verdict])
    typer.echo(f"{verdict}  {finding.name:18}  {finding.found}")
    if finding.hint:
        typer.echo(f"{'':26}→ {finding.hint}")
