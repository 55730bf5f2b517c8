"""TensorBoard event files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from gad_ray.errors import DataError
from gad_ray.health.reading.rows import LogLine, ReadLog

_ALL = 0


def event_directories(root: Path) -> list[Path]:
    """The directories at or below ``root`` that hold event files."""
    return sorted({path.parent for path in root.rglob("*tfevents*") if path.is_file()})


def read_board(path: Path) -> ReadLog:
    """Read the scalars of an event file or of a directory with event files.

    Raises:
        DataError: If there are several runs below the directory, or no scalars.
    """
    source = path
    if path.is_dir():
        directories = event_directories(path)
        if len(directories) > 1:
            names = ", ".join(str(d.relative_to(path)) for d in directories)
            raise DataError(
                f"holds the events of {len(directories)} runs: {names}",
                where=str(path),
                hint="give one of them",
            )
        source = directories[0]
    # TensorBoard tells of a file that is cut off by a line on standard error, and reads what is there.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    board: Any = EventAccumulator(str(source), size_guidance={"scalars": _ALL, "tensors": _ALL})
    board.Reload()
    steps: dict[int, dict[str, float]] = {}
    for tag in board.Tags()["scalars"]:
        for event in board.Scalars(tag):
            steps.setdefault(event.step, {})[tag] = event.value
    for tag in board.Tags()["tensors"]:
        for event in board.Tensors(tag):
            value: Any = make_ndarray(event.tensor_proto)
            if value.size == 1 and value.dtype.kind == "f":
                steps.setdefault(event.step, {})[tag] = float(value.reshape(()))
    if not steps:
        raise DataError(
            "the event files hold no scalars",
            where=str(source),
            hint="wait for the first step, or give the directory that metrics were logged to",
        )
    return ReadLog(lines=[LogLine(step, None, steps[step]) for step in sorted(steps)])
