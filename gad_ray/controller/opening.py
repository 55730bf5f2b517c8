"""What every command that trains begins with: signals, the run's directory, its data."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

from ray.exceptions import RayError

from gad_ray.activity import telling
from gad_ray.checkpoint.store import CheckpointStore
from gad_ray.config import RunConfig
from gad_ray.controller.interrupt import Interrupted, StopRequest
from gad_ray.errors import CheckpointError, GadError
from gad_ray.observability.run_dir import RunDirectory, find_run


def interruptible(work: Callable[[StopRequest], int]) -> int:
    """Run something that SIGINT and SIGTERM may end.

    Returns:
        What it returns, or 130 after SIGINT and 143 after SIGTERM.

    Raises:
        GadError: Where Ray failed.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    logging.getLogger("gad_ray").setLevel(logging.WARNING)
    with telling("stdout") as teller, StopRequest(teller.say_soon) as stop:
        # Until Ray is started there is nothing to stop in good order.
        stop.abrupt = True
        try:
            return work(stop)
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
                f"Ray failed: {error}", mend="see ray status and Ray's own logs; continue with --resume auto"
            ) from error


def open_directory(config: RunConfig, resume: str | None) -> tuple[RunDirectory, Path | None]:
    """The run's directory, and the checkpoint to go on from.

    Raises:
        CheckpointError: If a run that was named has nothing to go on from.
        ConfigError: If there is no such run, or no directory can be made.
    """
    if resume is None:
        return RunDirectory.create(config, resume=False), None
    if resume == "auto":
        directory = RunDirectory.create(config, resume=True)
    else:
        directory = find_run(resume, config.output_dir)
    checkpoint = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep).latest()
    if checkpoint is None and resume != "auto" and not directory.warm_start.config_yaml.is_file():
        raise CheckpointError(
            "the run has no checkpoint to go on from",
            where=str(directory.root),
            mend="start it anew, without --resume",
        )
    return directory, checkpoint
