"""Arguments that several commands share."""

from __future__ import annotations

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
