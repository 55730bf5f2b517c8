"""``gad-ray score``: rows of JSONL in, the same rows with their scores out."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, cast

from gad_ray.activity import tells
from gad_ray.data.jsonl import rows_of
from gad_ray.errors import DataError

_STANDARD = "-"


@tells
def score_file(critic: str, source: str, out: str, *, key_variable: str) -> None:
    """Score the rows of a file.

    Args:
        critic: Directory of an exported critic, or URL of an endpoint.
        source: JSONL file with ``content`` (or ``prompt``, ``messages``) and ``response`` (or
            ``teacher_response``); ``-`` for standard input.
        out: JSONL file to write; ``-`` for standard output.
        key_variable: Environment variable with the endpoint's key.

    Raises:
        DataError: If a row cannot be used, or a file cannot be opened.
        ModelError: If the directory holds no critic.
        EndpointError: If the endpoint refuses, or cannot be reached.
    """
    with _open(source, "r") as lines:
        rows = list(rows_of(lines, name="standard input" if source == _STANDARD else source))
    from gad_ray.evaluation.scoring import score_rows

    scored = score_rows(critic, rows, key_env=key_variable)
    with _open(out, "w") as file:
        for row in scored:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _open(name: str, mode: str) -> AbstractContextManager[IO[str]]:
    if name == _STANDARD:
        return nullcontext(sys.stdin if mode == "r" else sys.stdout)
    try:
        return cast("IO[str]", Path(name).open(mode, encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be opened: {error.strerror}", where=name, hint="check the path") from error
