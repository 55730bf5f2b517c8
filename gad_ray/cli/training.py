"""What trains: a game, an offline fit, and the recipes that they begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gad_ray.cli.arguments import DryRun, Recipe, RecipeName


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
    from gad_ray.commands.train import run_training

    raise typer.Exit(run_training(recipe, overrides or [], dry_run=dry_run, resume=resume))


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
    from gad_ray.commands.fit import run_fit

    raise typer.Exit(run_fit(method, recipe, overrides or [], dry_run=dry_run, resume=resume))


def recipes_list() -> None:
    """List the recipes, a line each."""
    from gad_ray.commands.recipes import list_recipes

    list_recipes()


def recipes_show(name: RecipeName) -> None:
    """Print a recipe."""
    from gad_ray.commands.recipes import show_recipe

    show_recipe(name)


def recipes_copy(
    name: RecipeName,
    to: Annotated[
        Path | None, typer.Argument(help="The file to write; NAME.yaml here when left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Copy a recipe to a file of your own, to change it there."""
    from gad_ray.commands.recipes import copy_recipe

    copy_recipe(name, to, force=force)
