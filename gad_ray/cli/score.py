"""``gad-ray score``: rows of JSONL in, the same rows with their scores out."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Annotated, cast

import typer

from gad_ray.activity import tells
from gad_ray.cli.arguments import EndpointKey
from gad_ray.errors import DataError

_STANDARD = "-"


@tells
def score(
    critic: Annotated[
        str | None, typer.Option(metavar="DIR|URL", help="An exported critic, or one that is served.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="The same as --critic URL.")] = None,
    source: Annotated[
        str,
        typer.Option("--in", metavar="FILE|-", help="JSONL with content (or prompt, messages) and response."),
    ] = "-",
    out: Annotated[str, typer.Option(metavar="FILE|-", help="JSONL: the rows, each with its score.")] = "-",
    key_env: EndpointKey = "GAD_RAY_SERVE_KEY",
) -> None:
    """Score responses with an exported critic, or a served one. Scores compare only within one prompt."""
    from gad_ray.data.jsonl import rows_of

    chosen = critic or endpoint
    if chosen is None or (critic is not None and endpoint is not None):
        raise typer.BadParameter("give either --critic or --endpoint")
    with _open(source, "r") as lines:
        rows = list(rows_of(lines, name="standard input" if source == _STANDARD else source))
    from gad_ray.evaluation.scoring import score_rows

    scored = score_rows(chosen, rows, key_env=key_env)
    try:
        with _open(out, "w") as file:
            for row in scored:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
    except OSError as error:
        raise DataError(
            f"cannot be written: {error.strerror}", where=out, hint="make room, or name another file"
        ) from error


def _open(name: str, mode: str) -> AbstractContextManager[IO[str]]:
    if name == _STANDARD:
        return nullcontext(sys.stdin if mode == "r" else sys.stdout)
    try:
        return cast("IO[str]", Path(name).open(mode, encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be opened: {error.strerror}", where=name, hint="check the path") from error
