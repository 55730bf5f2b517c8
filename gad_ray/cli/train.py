"""``gad-ray train`` and ``gad-ray fit``: check the configuration, then train, or only say what training would do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, TypeGuard, get_args

import typer

from gad_ray.cli.arguments import DryRun, Recipe, say
from gad_ray.errors import ConfigError

if TYPE_CHECKING:
    from gad_ray.config import FitMethod, RunConfig


def train(
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings in place of the file's: rollout.temperature=0.6"),
    ] = None,
    dry_run: DryRun = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|RUN", help="Go on from the newest checkpoint: of this run, or of a run's directory."
        ),
    ] = None,
) -> None:
    """Distil: warm the critic up, then play the adversarial game."""
    from gad_ray.config import load_config

    config = load_config(recipe, overrides or [])
    if dry_run:
        raise typer.Exit(_dry_run(config, resume=resume))
    from gad_ray.controller.train import train as run

    raise typer.Exit(run(config, resume=resume))


def fit(
    method: Annotated[str, typer.Argument(metavar="seqkd|soda", help="How to fit.")],
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings in place of the file's: fit.seqkd.epochs=2"),
    ] = None,
    dry_run: DryRun = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|RUN", help="Go on from the newest checkpoint: of this fit, or of a fit's directory."
        ),
    ] = None,
) -> None:
    """Fit the policy to fixed text, without a game: the baselines, and what a game may start from.

    seqkd: cross-entropy on the teacher's text. soda: DPO, the teacher's text preferred to what the base policy
    itself answers.
    """
    from gad_ray.config import load_config

    chosen = _fit_method(method)
    given = overrides or []
    config = load_config(recipe, given)
    is_named = any(override.partition("=")[0].strip() == "name" for override in given)
    if not is_named and not config.name.endswith(f"-{chosen}"):
        config = config.model_copy(update={"name": f"{config.name}-{chosen}"})
    if dry_run:
        raise typer.Exit(_dry_run(config, chosen, resume=resume))
    from gad_ray.controller.fit import fit as run

    raise typer.Exit(run(config, chosen, resume=resume))


def _fit_method(name: str) -> FitMethod:
    from gad_ray.config import FitMethod

    known: tuple[str, ...] = get_args(FitMethod)

    def is_known(name: str) -> TypeGuard[FitMethod]:
        return name in known

    if is_known(name):
        return name
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise ConfigError(f"'{name}' is no way to fit", hint=f"{hint}known ones: {', '.join(known)}")


def _dry_run(config: RunConfig, fit: FitMethod | None = None, *, resume: str | None = None) -> int:
    """Check a run and print what was found: findings to standard output, warnings and problems to standard error.

    Returns:
        The exit code: 0 if the run can start, else 2.
    """
    if resume is not None:
        raise ConfigError("--dry-run and --resume exclude each other", hint="leave one of them out")
    from rich.console import Console

    from gad_ray.config import to_yaml
    from gad_ray.dry_run import dry_run
    from gad_ray.findings import print_finding

    found = dry_run(config, fit=fit)
    say("# the configuration, resolved")
    say(to_yaml(found.config))
    for title, lines in found.sections.items():
        say(title)
        for line in lines:
            say(f"  {line}")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for finding in found.findings:
        print_finding(finding, console)
    if found.problems:
        return ConfigError.exit_code
    say("dry run: nothing stands against this run")
    return 0
