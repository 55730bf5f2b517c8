"""``gad-ray train --dry-run`` and ``fit --dry-run``: the resolved configuration, what it comes to, and what stands against it."""

from __future__ import annotations

import typer
from rich.console import Console

from gad_ray.config import FitMethod, RunConfig, to_yaml
from gad_ray.dry_run import dry_run
from gad_ray.errors import ConfigError
from gad_ray.findings import print_finding


def report(config: RunConfig, fit: FitMethod | None = None) -> int:
    """Check a run and print all that was found: findings to standard output, warnings and problems to standard error.

    Args:
        config: The run's configuration.
        fit: The method of an offline fit; a game when None.

    Returns:
        The exit code: 0 if the run can start, else 2.
    """
    found = dry_run(config, fit=fit)
    typer.echo("# the configuration, resolved")
    typer.echo(to_yaml(found.config))
    for title, lines in found.sections.items():
        typer.echo(title)
        for line in lines:
            typer.echo(f"  {line}")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for finding in found.findings:
        print_finding(finding, console)
    if found.problems:
        return ConfigError.exit_code
    typer.echo("dry run: nothing stands against this run")
    return 0
