"""What every command that trains begins with: signals, the run's directory, its data."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

from ray.exceptions import RayError

from gad_ray.activity import telling
from gad_ray.auto import resolve
from gad_ray.checkpoint.store import CheckpointStore
from gad_ray.config import RunConfig, load_config
from gad_ray.errors import CheckpointError, GadError
from gad_ray.interrupt import Interrupted, StopRequest
from gad_ray.observability.run_dir import RunDirectory, find_run, latest_run

P = ParamSpec("P")

_logger = logging.getLogger(__name__)


def interruptible(work: Callable[Concatenate[StopRequest, P], int]) -> Callable[P, int]:
    """Let SIGINT and SIGTERM end what is decorated: it is given the request to stop, which callers do not see.

    The function then returns what it returned, or 130 after SIGINT and 143 after SIGTERM, and raises a ``GadError`` where
    Ray failed.
    """

    @wraps(work)
    def run(*arguments: P.args, **named: P.kwargs) -> int:
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        logging.getLogger("gad_ray").setLevel(logging.WARNING)
        with telling("stdout") as teller, StopRequest(teller.say_soon) as stop:
            # Until Ray is started there is nothing to stop in good order.
            stop.abrupt = True
            try:
                return work(stop, *arguments, **named)
            except Interrupted as interrupted:
                name = signal.Signals(interrupted.signal_number).name
                teller.say_soon(
                    f"stopped by {name}; --resume auto goes on from the last checkpoint, if there is one"
                )
                return interrupted.exit_code
            except SystemExit as left:
                # What Ray makes of SIGTERM while it starts.
                if left.code != signal.SIGTERM:
                    raise
                return 128 + signal.SIGTERM
            except RayError as error:
                # What no wait was there to explain, as the loss of the cluster itself.
                raise GadError(
                    f"Ray failed: {error}",
                    hint="see ray status and Ray's own logs; continue with --resume auto",
                ) from error

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A run about to begin or to go on.

    Attributes:
        config: Its configuration, in which nothing is ``auto``.
        directory: Where it is written.
        checkpoint: What it goes on from; None where it begins.
        choices: What the machine decided and why, a line for each setting.
    """

    config: RunConfig
    directory: RunDirectory
    checkpoint: Path | None
    choices: tuple[str, ...]


def open_run(
    config: RunConfig, resume: str | None, *, check: Callable[[RunDirectory, Path, RunConfig], object]
) -> Opened:
    """Find or make the run's directory, settle what ``auto`` comes to, and warn of what will be slow.

    A resumed run keeps what it began with, on whatever machine.

    Args:
        config: The run, as it was asked for.
        resume: None for a new run, ``auto`` for the newest of the config's name, or a run's name or path.
        check: Raises if a checkpoint was made with other settings; asked before anything is written.

    Raises:
        CheckpointError: If a run that was named has nothing to go on from, or has other settings.
        ConfigError: If there is no such run, or no directory can be made.
    """
    directory = _earlier(config, resume)
    resolved = resolve(config, earlier=None if directory is None else _as_begun(directory))
    for warning in resolved.warnings:
        _logger.warning("warning: %s", warning)
    config, lines = resolved.config, resolved.lines
    if directory is None:
        return Opened(
            config=config,
            directory=RunDirectory.create(config, choices=lines),
            checkpoint=None,
            choices=tuple(lines),
        )
    checkpoint = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep).latest()
    if checkpoint is not None:
        check(directory, checkpoint, config)
    elif resume != "auto" and not directory.warm_start.config_yaml.is_file():
        raise CheckpointError(
            "the run has no checkpoint to go on from",
            where=str(directory.root),
            hint="start it anew, without --resume",
        )
    if resume == "auto":
        directory.prepare(config, choices=lines)
    return Opened(config=config, directory=directory, checkpoint=checkpoint, choices=tuple(lines))


def _earlier(config: RunConfig, resume: str | None) -> RunDirectory | None:
    """The directory of the run to go on with; None for a new one."""
    if resume is None:
        return None
    if resume == "auto":
        return latest_run(config.output_dir, config.name)
    return find_run(resume, config.output_dir)


def _as_begun(directory: RunDirectory) -> RunConfig:
    """The configuration with which a run began. What a warm start was fitted with counts first: it cannot be changed."""
    fitted = directory.warm_start.config_yaml
    return load_config(str(fitted if fitted.is_file() else directory.config_yaml))
