"""Whatever a user points at: a run's name, a directory, a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gad_ray.errors import DataError
from gad_ray.health.facts import RunFacts
from gad_ray.health.history import History
from gad_ray.health.reading.board import event_directories, read_board
from gad_ray.health.reading.rows import ReadLog, assemble
from gad_ray.health.reading.run import own_facts, read_config, read_run
from gad_ray.health.reading.text import read_text
from gad_ray.observability.run_dir import RunDirectory, find_run


def read_history(
    source: str, *, facts: RunFacts | None = None, stage: str | None = None, output_dir: str | Path = "runs"
) -> History:
    """Read a run (by name or directory), a metrics file, TensorBoard events, or verl's console log.

    Args:
        source: What the user gave.
        facts: What the user tells beside it; it goes before what the log tells.
        stage: The stage of all steps, where the log does not tell it.
        output_dir: Where runs are looked for by name.

    Raises:
        ConfigError: If no run is called so.
        DataError: Naming the file, what was found, and the hint.
    """
    path = Path(source)
    if not (Path(output_dir) / source / "config.yaml").is_file():
        if path.is_file():
            return _with_facts(_read_file(path, stage), facts)
        if path.is_dir() and not (path / "config.yaml").is_file():
            return _with_facts(_read_directory(path, stage), facts)
        if not path.exists() and (path.suffix in {".jsonl", ".json", ".log", ".txt"} or len(path.parts) > 1):
            raise DataError("no such file or directory", where=source, hint="check the path")
    return _with_facts(read_run(find_run(source, output_dir), stage=stage), facts)


def _read_file(path: Path, stage: str | None) -> History:
    if "tfevents" in path.name:
        return _of_board(path, stage)
    run = RunDirectory(root=path.parent)
    if path.name == run.metrics_jsonl.name and run.config_yaml.is_file():
        return read_run(run, stage=stage)
    kind, log = read_text(path)
    rows, numbered, notes = assemble(log, where=str(path), stage=stage)
    return History(
        place=str(path), kind=kind, rows=rows, numbered=numbered, facts=log.facts, notes=(*log.notes, *notes)
    )


def _read_directory(path: Path, stage: str | None) -> History:
    if event_directories(path):
        return _of_board(path, stage)
    metrics = RunDirectory(root=path).metrics_jsonl
    if metrics.is_file():
        return _read_file(metrics, stage)
    found = sorted(item.name for item in path.iterdir())
    shown = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
    raise DataError(
        f"neither a run (config.yaml, metrics.jsonl) nor TensorBoard events; it holds {shown}",
        where=str(path),
        hint="give a run's directory, a TensorBoard directory, or a file of metrics",
    )


def _of_board(path: Path, stage: str | None) -> History:
    log: ReadLog = read_board(path)
    rows, _, notes = assemble(log, where=str(path), stage=stage)
    # The events of a run of ours lie beside its configuration.
    config_yaml = (path if path.is_dir() else path.parent).resolve().parent / "config.yaml"
    config = read_config(config_yaml) if config_yaml.is_file() else None
    return History(
        place=str(path),
        kind="board",
        rows=rows,
        facts=own_facts(config, rows),
        config=config,
        notes=tuple(notes),
    )


def _with_facts(history: History, facts: RunFacts | None) -> History:
    if facts is None:
        return history
    told = history.facts.model_dump(exclude_none=True) | facts.model_dump(exclude_none=True)
    return replace(history, facts=RunFacts.model_validate(told))
