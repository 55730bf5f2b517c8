"""``gad-ray recipes``: list, show and copy the packaged recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gad_ray.cli.arguments import RecipeName, say
from gad_ray.errors import ConfigError


def recipes_list() -> None:
    """List the recipes, a line each."""
    from gad_ray.config.load import find_recipe, recipe_names

    names = recipe_names()
    width = max(map(len, names))
    for name in names:
        comment = find_recipe(name).read_text(encoding="utf-8").partition("\n")[0]
        say(f"{name:{width}}  {comment.removeprefix('#').strip()}")


def recipes_show(name: RecipeName) -> None:
    """Print a recipe."""
    from gad_ray.config.load import find_recipe

    say(find_recipe(name).read_text(encoding="utf-8"), nl=False)


def recipes_copy(
    name: RecipeName,
    to: Annotated[
        Path | None, typer.Argument(help="The file to write; NAME.yaml here when left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Copy a recipe to a file of your own, to change it there."""
    from gad_ray.config.load import find_recipe

    source = find_recipe(name)
    target = Path() if to is None else to
    if target.is_dir():
        target /= source.name
    text = source.read_text(encoding="utf-8")
    try:
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            "the file is there already",
            where=str(target),
            hint="name another file, or write over it with --force",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}",
            where=str(target),
            hint="name a file in a writable directory",
        ) from error
    say(f"{target}  (start it: gad-ray train {target})")
