"""``gad-ray recipes``: list, show and copy the packaged recipes."""

from __future__ import annotations

from pathlib import Path

import typer

from gad_ray.config.load import find_recipe, recipe_names
from gad_ray.errors import ConfigError


def list_recipes() -> None:
    """Print each recipe's name and the first line of its comment."""
    names = recipe_names()
    width = max(map(len, names))
    for name in names:
        typer.echo(f"{name:{width}}  {_first_line(find_recipe(name))}")


def show_recipe(name: str) -> None:
    """Print a recipe as it is packaged, comments included.

    Raises:
        ConfigError: If there is no recipe of that name.
    """
    typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)


def copy_recipe(name: str, to: Path | None, *, force: bool) -> None:
    """Copy a recipe to a file.

    Args:
        name: The recipe's name.
        to: The file, or a directory to put ``NAME.yaml`` into; the working directory when None.
        force: Write over a file that is there.

    Raises:
        ConfigError: If there is no recipe of that name, or the file cannot be written or is there already.
    """
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
    typer.echo(f"{target}  (start it: gad-ray train {target})")


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
