"""A run of the real controller whose engines and learners are simulated."""

from __future__ import annotations

import json
import pickle
import re
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from subprocess import run as run_command
from typing import Any, TypeVar

import psutil
import ray
from ray.actor import ActorProxy

from gad_ray.actors.groups import ActorGroups
from gad_ray.actors.process import runtime_env
from gad_ray.actors.waiting import Waiter
from gad_ray.batch import Example, Message
from gad_ray.bench.controller.actors import LearnerHost, RolloutHost, Simulation, Told, text_of
from gad_ray.config import RunConfig
from gad_ray.controller.controller import Controller
from gad_ray.controller.critic_publisher import CriticPublisher
from gad_ray.controller.progress import Progress
from gad_ray.data.dataset import DataReport, Lengths, LoadedData
from gad_ray.data.quarantine import QuarantineReport
from gad_ray.errors import GadError
from gad_ray.interrupt import StopRequest
from gad_ray.observability.run_dir import RunDirectory

A = TypeVar("A")
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large a simulated run is.

    Attributes:
        prompts: Of a step.
        responses: To each.
        workers: Rollout workers.
        critics: Ranks of the critic.
        policies: Ranks of the policy.
        processes: Most that the actors of one kind take; the others share them.
    """

    prompts: int
    responses: int
    workers: int
    critics: int
    policies: int
    processes: int = 4

    @property
    def calls(self) -> int:
        """Messages of a step: to every worker its prompts and the weights, to the ranks, and for a snapshot."""
        return 2 * self.workers + self.critics + self.policies + 1


class CountingWaiter(Waiter):
    """Counts what the driver takes from the object store."""

    num_results = 0
    num_bytes = 0

    def get(self, refs: Sequence[Any], *, what: str, deadline_s: float) -> list[Any]:
        """See :meth:`Waiter.get`."""
        values = super().get(refs, what=what, deadline_s=deadline_s)
        self.num_results += len(values)
        self.num_bytes += len(pickle.dumps(values))
        return values


class SimulatedGroups(ActorGroups):
    """The groups of a run, with actors that compute nothing in place of engines and learners."""

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        stop: StopRequest,
        *,
        what: Simulation,
        processes: int,
    ) -> None:
        super().__init__(config, directory, stop, waiter_class=CountingWaiter)
        self._sizes = (
            config.rollout.num_workers,
            config.critic.group.num_ranks,
            config.policy.group.num_ranks,
        )
        self._what = what
        self._processes = processes
        self.hosts: list[ActorProxy[Any]] = []

    def start(self, *, critic_steps: int, policy_steps: int, fit_steps: int) -> None:
        """Start the processes; each answers for as many actors as fall to it."""
        del critic_steps, policy_steps, fit_steps
        self.rewards.place(self._log_names(), records=str(self._records))
        groups: tuple[Any, ...] = (self.rollout, self.critic, self.policy)
        for group, kind, count in zip(
            groups, (RolloutHost, LearnerHost, LearnerHost), self._sizes, strict=True
        ):
            hosts = self._start_hosts(kind, count)
            for i in range(count):
                group.add(hosts[i % len(hosts)])
        setups = [*self.rewards.setup(), *(host.setup.remote() for host in self.hosts)]
        self.pids = self.waiter.get(
            setups, what="the simulated actors", deadline_s=self._config.limits.start_s
        )

    def told(self) -> list[Told]:
        """What every process has done so far."""
        return ray.get([host.told.remote() for host in self.hosts])

    def _start_hosts(self, kind: type[A], count: int) -> list[ActorProxy[A]]:
        num_hosts = min(count, self._processes)
        options = ray.remote(kind).options(
            num_cpus=0,
            max_concurrency=-(-count // num_hosts),
            max_restarts=0,
            runtime_env=runtime_env(threads=1),
        )
        hosts: list[ActorProxy[A]] = [options.remote(self._what) for _ in range(num_hosts)]
        self.hosts += hosts
        return hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What there is between two steps.

    Attributes:
        driver_mib: Private memory of the driver.
        actors_mib: The same of the simulated actors and of the reward stage, if it is on this machine.
        store_mib: Memory of Ray's object store that is in use.
        spilled_mib: What the store has written to the disk since Ray was started.
        calls: Messages that the simulated actors were sent since they were started.
        sent_bytes: What the rollout workers put into the object store.
        read_bytes: What the learners read.
        copied_bytes: Arrays among that which are no longer the object store's.
        results: Values that the driver took.
        result_bytes: Their size.
    """

    driver_mib: float
    actors_mib: float
    store_mib: float
    spilled_mib: float
    calls: int
    sent_bytes: int
    read_bytes: int
    copied_bytes: int
    results: int
    result_bytes: int


class SimulatedRun:
    """Steps of a controller, in the game from the first.

    Args:
        controller: The controller.
        groups: Its actors.
        directory: Where it writes.
    """

    def __init__(self, controller: Controller, groups: SimulatedGroups, directory: RunDirectory) -> None:
        self._controller = controller
        self._groups = groups
        self._directory = directory

    def step(self) -> float:
        """Play one; returns its seconds, with all that the controller writes."""
        started = time.perf_counter()
        self._controller.step()
        return time.perf_counter() - started

    def parts(self) -> dict[str, float]:
        """Seconds by part of the last step, as the run has logged them."""
        row = json.loads(self._directory.metrics_jsonl.read_text(encoding="utf-8").splitlines()[-1])
        return {name.removeprefix("timing_s/"): row[name] for name in row if name.startswith("timing_s/")}

    def state(self) -> State:
        """What there is now.

        Raises:
            GadError: If Ray does not tell of its store, or an actor has loaded torch.
        """
        told = self._groups.told()
        if any(one.has_torch for one in told):
            raise GadError(
                "a simulated actor has loaded torch", hint="its memory is not that of messages alone"
            )
        store_mib, spilled_mib = store()
        waiter = self._groups.waiter
        assert isinstance(waiter, CountingWaiter)
        return State(
            driver_mib=_private_mib(None),
            actors_mib=sum(one.memory_bytes for one in told) / MIB + _private_mib(self._groups.pids[0]),
            store_mib=store_mib,
            spilled_mib=spilled_mib,
            calls=sum(one.calls for one in told),
            sent_bytes=sum(one.sent_bytes for one in told),
            read_bytes=sum(one.read_bytes for one in told),
            copied_bytes=sum(one.copied_bytes for one in told),
            results=waiter.num_results,
            result_bytes=waiter.num_bytes,
        )


@contextmanager
def simulated_run(sizes: Sizes, what: Simulation, *, steps: int, out: Path) -> Generator[SimulatedRun]:
    """A run that is ready for its first step, on the Ray cluster that is connected.

    Args:
        sizes: How large it is.
        what: What its actors do.
        steps: Most steps that will be played.
        out: Where its directory is made.
    """
    config = _config(sizes, what, steps=steps, out=out)
    directory = RunDirectory.create(config)
    # What a run shows on a terminal would stand in the middle of the figures.
    with (directory.logs / "console.log").open("w") as log:
        stop = StopRequest()
        groups = SimulatedGroups(config, directory, stop, what=what, processes=sizes.processes)
        try:
            with (
                redirect_stdout(log),
                Progress(config, directory, stage_steps={"adversarial": steps}) as progress,
                CriticPublisher(config, groups=groups, progress=progress) as publisher,
            ):
                controller = Controller(
                    config,
                    directory=directory,
                    data=_data(sizes, what, directory),
                    groups=groups,
                    progress=progress,
                    stop=stop,
                    publisher=publisher,
                )
                groups.start(critic_steps=steps, policy_steps=steps, fit_steps=0)
                progress.pids = groups.pids
                controller.stages.in_game = True
                yield SimulatedRun(controller, groups, directory)
        finally:
            groups.stop()


def _private_mib(pid: int | None) -> float:
    """Private memory of a process, of this one when None."""
    try:
        return psutil.Process(pid).memory_full_info().uss / MIB
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def store() -> tuple[float, float]:
    """MiB of Ray's object store that are in use, and MiB that it has spilled, on all nodes together.

    Raises:
        GadError: If ``ray memory`` does not tell.
    """
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "ray.scripts.scripts", "memory", "--stats-only", "--address", address]
    done = run_command(command, capture_output=True, text=True, check=False)
    used = re.search(r"Plasma memory usage (\d+) MiB", done.stdout)
    if used is None:
        raise GadError(
            f"ray memory does not tell what the object store holds: {done.stdout}{done.stderr[-500:]}"
        )
    spilled = re.search(r"Spilled (\d+) MiB", done.stdout)
    return float(used[1]), float(spilled[1]) if spilled else 0.0


def _config(sizes: Sizes, what: Simulation, *, steps: int, out: Path) -> RunConfig:
    model = {"model": "simulated"}
    return RunConfig.model_validate(
        {
            "name": f"{sizes.workers}-workers",
            "output_dir": str(out / "runs"),
            "prompts_per_step": sizes.prompts,
            "data": {"train": ("simulated",), "heldout_prompts": 0},
            "policy": {"model": model, "group": {"num_ranks": sizes.policies}},
            "critic": {"model": model, "group": {"num_ranks": sizes.critics}},
            "rollout": {
                "num_workers": sizes.workers,
                "responses_per_prompt": sizes.responses,
                "max_response_tokens": what.tokens,
            },
            "stages": {"warmup": {"steps": 0}, "adversarial": {"steps": steps}},
            "evaluation": {"every": 0},
            "checkpoint": {"every": 0, "at_end": False},
            "records": {"every": 0},
        }
    )


def _data(sizes: Sizes, what: Simulation, directory: RunDirectory) -> LoadedData:
    prompt, teacher = text_of(256), text_of(what.tokens)
    examples = tuple(
        Example(
            id=f"row-{i}",
            messages=(Message(role="user", content=f"{i} {prompt}"),),
            teacher_response=f"{i} {teacher}",
        )
        for i in range(sizes.prompts)
    )
    nothing = QuarantineReport(
        path=directory.quarantine_jsonl, num_rows=sizes.prompts, counts={}, examples={}
    )
    report = DataReport(
        sources=("simulated",),
        quarantine=nothing,
        heldout_drawn=False,
        num_heldout_unused=0,
        num_filtered=0,
        num_repeated_prompts=0,
        num_with_history=0,
        num_with_system=0,
        prompt_lengths=Lengths.of([256]),
        response_lengths=Lengths.of([what.tokens]),
    )
    return LoadedData(train=examples, heldout=(), report=report)
