"""What each worker of a fit runs, on a worker of Ray Train.

Every rank holds the whole policy and sees every batch; it trains on its share. Rank 0 speaks to the driver. A fit
on another number of ranks, or one that was broken off and went on, gives the same weights.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.collective
import torch

from gad_ray.actors.process import redirect_output
from gad_ray.batch import Example, Float32, Metrics, PromptBatch, TrainStats, merge_metrics
from gad_ray.checkpoint.tensors import (
    capture_rng,
    load_nested,
    load_state,
    restore_rng,
    save_nested,
    save_state,
)
from gad_ray.data.cursor import PromptCursor
from gad_ray.errors import GadError
from gad_ray.fitting.job import FitJob
from gad_ray.fitting.mailbox import (
    Begin,
    Doing,
    Exported,
    Failed,
    Joined,
    NllBefore,
    Position,
    Request,
    Saved,
    SaveRequest,
    StepDone,
)
from gad_ray.fitting.methods import Method, build_method
from gad_ray.learners.collective import (
    Collective,
    LocalCollective,
    TorchCollective,
    reserve_address,
    shared_out,
)
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.load import TORCH_DTYPES

_STATE, _RNG = "state", "rng"


def fit_worker(settings: dict[str, FitJob]) -> None:
    """The training function of the ``DataParallelTrainer``.

    An error of ours would come again if the group were started anew: it is told to the driver, which ends the
    fit. Anything else is Ray Train's to handle.
    """
    job = settings["job"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    redirect_output(job.log(rank))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        FitWorker(job, rank=rank, size=context.get_world_size()).run()
    except GadError as error:
        ray.get(job.mailbox.ask.remote(Failed(rank=rank, error=error)))


class FitWorker:
    """One rank."""

    def __init__(self, job: FitJob, *, rank: int, size: int) -> None:
        self._job = job
        self._rank = rank
        config = job.config
        device = torch.device("cuda" if config.policy.group.gpus_per_rank > 0 else "cpu")
        self._collective = _join(rank, size, device, timeout_s=config.limits.update_s)
        self._train: tuple[Example, ...] = ray.get(job.train)
        self._heldout: tuple[Example, ...] = ray.get(job.heldout)
        # Whatever draws from torch's own generator does so alike on every rank and at every start.
        torch.manual_seed(config.seed)
        settings = config.fit.of(job.method)
        batch_size = config.prompts_per_fit_step(job.method)
        self._learner = PolicyLearner(
            config.policy.model_copy(update={"optimizer": settings.optimizer}),
            mini_batch_prompts=batch_size,
            total_steps=job.total_steps,
            warmup_lr=None,
            collective=self._collective,
            max_nonfinite_steps=config.limits.max_nonfinite_steps,
            device=device,
        )
        self._step = 0
        self._batch_size = batch_size
        self._ids = [example.id for example in self._train]
        self._cursor = PromptCursor(self._ids, seed=config.data.seed, batch_size=batch_size)

    def run(self) -> None:
        """Fit from the checkpoint that the driver names, or from the start; save; export."""
        position = self._begin()
        method = self._method()
        if position is not None:
            self._load(position)
        elif self._heldout:
            self._say("the likelihood of the teacher's text under the base policy")
            self._tell(NllBefore(values=self._nll()))
        stopped = self._fit(method)
        if stopped or self._job.config.checkpoint.at_end:
            self._save()
        if not stopped:
            self._export()
        self._collective.close()

    # -- parts ----------------------------------------------------------------------------------------

    def _begin(self) -> Position | None:
        """Join, and learn on every rank where to begin."""
        position = ray.train.collective.broadcast_from_rank_zero(self._tell(Begin()))
        ray.get(self._job.mailbox.ask.remote(Joined(rank=self._rank, pid=os.getpid())))
        return position

    def _method(self) -> Method:
        if self._job.method == "soda":
            self._say("the responses' likelihood under the base policy")
        return build_method(self._job, self._learner, self._train)

    def _fit(self, method: Method) -> bool:
        """Take the steps that are left; True if the driver asked to stop before the last."""
        every = self._job.config.fit.checkpoint_every
        while self._step < self._job.total_steps:
            started = time.perf_counter()
            step = self._step + 1
            examples = tuple(self._train[i] for i in self._cursor.next_batch())
            stats = method.step(PromptBatch(step=step, examples=examples))
            self._step = step
            metrics = merge_metrics(_step_metrics(stats, epoch=self._cursor.epoch), self._evaluate())
            metrics["timing_s/step"] = time.perf_counter() - started
            if self._stop_asked(self._tell(StepDone(step=step, metrics=metrics))):
                return step < self._job.total_steps
            if every and step % every == 0 and step < self._job.total_steps:
                self._save()
        return False

    def _evaluate(self) -> Metrics:
        """The likelihood of the held-out text, where that is due."""
        every, last = self._job.config.evaluation.every, self._step == self._job.total_steps
        if not self._heldout or not (last or (every and self._step % every == 0)):
            return {}
        started = time.perf_counter()
        nll = float(self._nll().mean())
        return {"eval/teacher_nll": nll, "timing_s/eval": time.perf_counter() - started}

    def _nll(self) -> Float32:
        return shared_out(self._heldout, self._collective, self._learner.teacher_nll)

    def _export(self) -> None:
        nll = self._nll() if self._heldout else None
        if self._rank == 0:
            dtype = TORCH_DTYPES[self._job.config.policy.model.dtype]
            self._learner.export(self._job.export, dtype=dtype)
        self._tell(Exported(nll=nll))

    # -- checkpoints ------------------------------------------------------------------------------------

    def _save(self) -> None:
        """All ranks are alike, one of them writes."""
        if self._rank != 0:
            return
        directory = Path(self._tell(SaveRequest(step=self._step))) / "policy"
        directory.mkdir()
        tensors, plain = self._learner.state()
        save_state(directory / _STATE, tensors, plain)
        save_nested(directory / _RNG, capture_rng())
        self._tell(Saved(step=self._step, policy_version=self._learner.version, data=self._cursor.state()))

    def _load(self, position: Position) -> None:
        saved = Path(position.checkpoint) / "policy"
        tensors, plain = load_state(saved / _STATE)
        self._learner.load_state(tensors, plain)
        restore_rng(load_nested(saved / _RNG))
        self._step = position.step
        self._cursor = PromptCursor.from_state(
            position.data, self._ids, seed=self._job.config.data.seed, batch_size=self._batch_size
        )

    # -- speaking ---------------------------------------------------------------------------------------

    def _tell(self, request: Request) -> Any:
        """Rank 0 asks the driver; the others go on with None."""
        return ray.get(self._job.mailbox.ask.remote(request)) if self._rank == 0 else None

    def _say(self, what: str) -> None:
        self._tell(Doing(what=what))

    def _stop_asked(self, answer: bool | None) -> bool:
        """What rank 0 was told, on every rank."""
        told = torch.tensor([float(bool(answer))])
        self._collective.add_up([told])
        return bool(told > 0)


def _join(rank: int, size: int, device: torch.device, *, timeout_s: float) -> Collective:
    """The group of all workers. Ray Train's own would listen on every interface of rank 0's node."""
    if size == 1:
        return LocalCollective()
    own = reserve_address(ray.util.get_node_ip_address()) if rank == 0 else None
    address = str(ray.train.collective.broadcast_from_rank_zero(own))
    return TorchCollective(rank=rank, size=size, address=address, timeout_s=timeout_s, device=device)


def _step_metrics(stats: TrainStats, *, epoch: float) -> Metrics:
    return {
        **stats.metrics,
        "actor/skipped_steps": float(stats.num_skipped),
        "timing_s/update_actor": stats.seconds,
        "data/epoch": epoch,
    }
