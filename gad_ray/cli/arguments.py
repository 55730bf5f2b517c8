"""What several commands share: arguments, and how they print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(metavar="RECIPE-or-PATH", help="A recipe's name or a YAML file.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check all that can be known without training, and say it.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]
RunOrCritic = Annotated[
    str,
    typer.Argument(
        metavar="RUN|CHECKPOINT", help="A run's name or path, or one of its checkpoints or exported critics."
    ),
]
RunsDirectory = Annotated[
    str, typer.Option("--runs", metavar="DIR", help="Where runs are looked for by name.")
]
EndpointKey = Annotated[
    str, typer.Option("--key-env", metavar="VARIABLE", help="Environment variable with the endpoint's key.")
]
RecipeName = Annotated[
    str, typer.Argument(metavar="NAME", help="The recipe's name; see gad-ray recipes list.")
]


def say(text: str, *, nl: bool = True) -> None:
    """Print for people and pipes, in the encoding that the terminal has.

    Args:
        text: What to print.
        nl: Whether the line ends behind it.
    """
    # Left to choose, typer writes UTF-8 where standard output says that it is ASCII.
    typer.echo(text, file=sys.stdout, nl=nl)
