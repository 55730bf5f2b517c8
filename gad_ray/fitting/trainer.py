"""Ray Train's ``DataParallelTrainer`` around the workers of a fit, seen from the driver."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from gad_ray.activity import waiting
from gad_ray.actors.placement import require_resources
from gad_ray.actors.process import log_tail, runtime_env
from gad_ray.actors.waiting import StopSignal
from gad_ray.auto import share_of_cores
from gad_ray.errors import ActorDiedError, DeadlineError
from gad_ray.fitting.job import FitJob
from gad_ray.fitting.mailbox import Request
from gad_ray.fitting.worker import fit_worker

if TYPE_CHECKING:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

_POLL_S = 0.5

_ENVIRONMENT: Mapping[str, str] = {
    # Paths of the configuration are relative to where the command was given.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # How soon a lost worker and the end are seen.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


class FitTrainer:
    """Starts the workers, answers what they ask, and sees them end.

    Lost workers are started anew by Ray Train, ``fit.max_failures`` times. Ray Train keeps nothing of the fit:
    checkpoints are the run's own.

    Args:
        job: The fit.
        storage: An empty place for what Ray Train writes; removed at the end.
        stop: Looked at while waiting.
    """

    def __init__(self, job: FitJob, *, storage: Path, stop: StopSignal) -> None:
        self._job = job
        self._storage = storage
        self._stop = stop
        self._error: BaseException | None = None

    def run(self, handle: Callable[[Request], object]) -> None:
        """Fit; returns when all workers have ended.

        Args:
            handle: Takes a request and gives the answer; an error that it raises ends the fit.

        Raises:
            ActorDiedError: If workers were lost more often than is allowed, or Ray Train's own processes were.
            DeadlineError: If they were silent for too long.
            GadError: If the cluster lacks the resources.
        """
        found = _coordinator()
        try:
            with _environment():
                trainer = self._build()
                thread = threading.Thread(target=self._fit, args=(trainer,), name="ray-train", daemon=True)
                thread.start()
                with waiting(lambda: f"the workers of the fit, which write to {self._job.logs}"):
                    self._serve(thread, handle)
        finally:
            shutil.rmtree(self._storage, ignore_errors=True)
            # Ray Train makes it where there is none, and would leave it running on the cluster.
            left = _coordinator()
            if found is None and left is not None:
                ray.kill(left)
        if self._error is not None:
            self._raise_loss(self._error)

    def _build(self) -> DataParallelTrainer:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.v2.api.config import LoggingConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        config = self._job.config
        group = config.policy.group
        resources = {"CPU": group.cpus_per_rank, "GPU": group.gpus_per_rank}
        resources = {kind: amount for kind, amount in resources.items() if amount > 0}
        require_resources([resources] * group.num_ranks)
        threads = group.threads or share_of_cores(config.policy.model.model, group.num_ranks)
        return DataParallelTrainer(  # and no DataParallelTrainer: the workers form their group themselves
            fit_worker,
            train_loop_config={"job": self._job},
            scaling_config=ScalingConfig(
                num_workers=group.num_ranks,
                use_gpu=group.gpus_per_rank > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=self._storage.name,
                storage_path=str(self._storage.parent),
                failure_config=FailureConfig(max_failures=config.fit.max_failures),
                worker_runtime_env=runtime_env(threads=threads),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )

    def _fit(self, trainer: DataParallelTrainer) -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that waits
            self._error = error

    def _serve(self, thread: threading.Thread, handle: Callable[[Request], object]) -> None:
        """Consumes requests until the trainer ends; its silence is bounded."""
        mailbox = self._job.mailbox
        limits = self._job.config.limits
        patience = limits.start_s + limits.update_s
        heard = time.monotonic()
        while True:
            self._stop.check()
            # Looked at before the mailbox: what was asked before the end is still answered.
            ended = not thread.is_alive()
            taken: list[tuple[int, Request]] = ray.get(mailbox.take.remote(0.0 if ended else _POLL_S))
            for number, request in taken:
                mailbox.answer.remote(number, handle(request))
                heard = time.monotonic()
            if ended and not taken:
                return
            if time.monotonic() - heard > patience:
                raise DeadlineError(
                    f"the workers of the fit said nothing for {patience:g} s",
                    hint="raise limits.start_s or limits.update_s if the work is really that slow; else read their "
                    f"logs: {self._job.logs}",
                )

    def _raise_loss(self, error: BaseException) -> None:
        from ray.train import WorkerGroupError

        logs = [self._job.log(rank) for rank in range(self._job.config.policy.group.num_ranks)]
        tails = "\n".join(f"--- last lines of {path}\n{log_tail(path)}" for path in logs)
        what = "Ray Train gave the fit up"
        if isinstance(error, WorkerGroupError):
            limit = self._job.config.fit.max_failures
            what = f"the workers of the fit were lost more than fit.max_failures = {limit} times"
        raise ActorDiedError(
            f"{what}: {error}\n{tails}",
            hint="a killed process is often out of memory: see gad-ray doctor; resume with --resume auto",
        ) from error


def _coordinator() -> Any:
    """Ray's detached actor that sums up what programs ask of the cluster's autoscaler, or None."""
    try:
        return ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
    except ValueError:
        return None


@contextmanager
def _environment() -> Generator[None]:
    """Ray Train is told some things by the driver's environment only."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
