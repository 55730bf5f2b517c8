"""Whole runs with tiny models, each the real command in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from filelock import FileLock

from gad_ray.observability.metrics import METRICS
from tests.cluster import ray_environment
from tests.processes import process_writing_to, wait_until, wait_until_gone
from tests.tiny import make_tiny_model

DEADLINE_S = 600.0
REPOSITORY = Path(__file__).parent.parent

VOLATILE = ("time", "timing_s/", "perf/")
"""Beginnings of the names in ``metrics.jsonl`` that are never the same twice."""

_CONFIG: dict[str, Any] = {
    "prompts_per_step": 4,
    "data": {"heldout_prompts": 6, "max_prompt_tokens": 110},
    "policy": {
        "model": {"compute": "float32"},
        "optimizer": {"lr": 1.0e-3},
        "kl": {"coefficient": 0.01},
        "group": {"cpus_per_rank": 0.2, "threads": 1},
    },
    "critic": {
        "model": {"compute": "float32"},
        "optimizer": {"lr": 1.0e-3},
        "max_tokens": 400,
        "group": {"cpus_per_rank": 0.2, "threads": 1},
    },
    "rollout": {
        "engine": "transformers",
        "precision": "float32",
        "responses_per_prompt": 3,
        "max_response_tokens": 12,
        "cpus_per_worker": 0.2,
        "threads": 1,
    },
    "stages": {"warmup": {"steps": 4}, "adversarial": {"steps": 12}},
    "fit": {
        "seqkd": {"steps": 6, "optimizer": {"lr": 1.0e-3}},
        "soda": {"steps": 6, "optimizer": {"lr": 1.0e-3}},
        "checkpoint_every": 2,
    },
    "evaluation": {"every": 3},
    "checkpoint": {"every": 2},
}

SLOW_ROLLOUT = (
    "prompts_per_step=8",
    "rollout.responses_per_prompt=64",
    "rollout.max_response_tokens=400",
    "rollout.batch_sequences=2",
    "critic.max_tokens=512",
    "data.heldout_prompts=0",
    "stages.warmup.steps=0",
    "stages.adversarial.steps=1",
)
"""Overrides with which the first rollout takes many minutes."""


OF_AN_ENDPOINT = frozenset({name for name in METRICS if name.startswith("serve/")} | {"timing_s/publish"})
"""Metrics that a run logs where its critic is served."""

REFILLED = (
    # A reward of 0 or 1 alone, so that a group's rewards are often all equal.
    "reward.discriminator_weight=0.0",
    "reward.format=[{name: pattern, regex: '[bcdf]'}]",
    "policy.advantage={zero_spread: drop, refill: {max_rounds: 2, oversample: 1.5}}",
    "data.curriculum={name: gap, order: descending, keep: 0.7}",
    "critic.replay={size: 30, ratio: 0.5}",
    # Longer than the warm-up takes to be judged: the game begins with a warning.
    "stages.warmup.until_ready={min_steps: 4}",
)
"""Overrides of a game that remembers more than most: the gaps of prompts, and past responses."""


def make_rows(count: int = 40) -> list[dict[str, str]]:
    """Prompts of several lengths with a teacher's answer to each."""
    return [
        {
            "id": f"row-{i}",
            "content": f"Say number {i} in a sentence{' of few words' * (i % 3)}.",
            "teacher_response": f"The number is {i}, and it is {('fine', 'good', 'as it should be')[i % 3]}.",
        }
        for i in range(count)
    ]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``out`` and ``err`` are what it wrote, without the terminal's line breaks in errors."""

    code: int
    out: str
    err: str
    root: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        return read_metrics(self.root)


def read_metrics(root: Path) -> list[dict[str, Any]]:
    """The complete lines of a run's ``metrics.jsonl``, none if there is no such file yet."""
    path = root / "metrics.jsonl"
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def steady(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what depends on the clock and the machine."""
    return [{name: value for name, value in row.items() if not name.startswith(VOLATILE)} for row in rows]


class Running:
    """A run under way."""

    def __init__(self, command: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        # Ray's sockets need a short path; RAY_TMPDIR also marks all processes that the run starts.
        self._scratch = Path(tempfile.mkdtemp(prefix="gad-", dir="/tmp"))
        self._out, self._err = self._scratch / "out", self._scratch / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                env={**environment, "RAY_TMPDIR": str(self._scratch)},
                cwd=REPOSITORY,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self) -> Outcome:
        """How the run ends; fails the test if it does not, or leaves a process behind."""
        try:
            code = self._process.wait(DEADLINE_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            outcome = self._outcome()
            wait_until_gone(self._scratch)
            wait_until_gone(self.root)
            shutil.rmtree(self._scratch)
        assert code == outcome.code
        return outcome

    def wait_for_step(self, step: int) -> None:
        """Until a step is in ``metrics.jsonl``."""
        self.wait_for(lambda: any(row["step"] >= step for row in read_metrics(self.root)), f"step {step}")

    def wait_for(self, condition: Any, what: str) -> None:
        """Until a condition holds; fails if the run ends before."""

        def holds() -> bool:
            if condition():
                return True
            assert self._process.poll() is None, f"ended before {what}:\n{self._outcome()}"
            return False

        try:
            wait_until(holds, what=what, deadline_s=DEADLINE_S)
        except BaseException:
            self._process.kill()
            self.wait()
            raise

    def said(self, text: str) -> bool:
        """Whether it has written a text."""
        return text in self._out.read_text(encoding="utf-8", errors="replace")

    def actor(self, name: str) -> psutil.Process | None:
        """The process of one of the run's actors, if it has begun."""
        return process_writing_to(self.root / "logs" / f"{name}.log")

    def kill_actor(self, name: str) -> None:
        """End an actor as the kernel does when memory runs out."""
        process = self.actor(name)
        assert process is not None, f"{name} is not there"
        process.send_signal(signal.SIGKILL)

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to everything in the foreground, the run and whatever it has started."""
        os.killpg(self._process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM to the run alone."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> Outcome:
        """SIGKILL to the run alone: it can say nothing to anybody."""
        self._process.kill()
        return self.wait()

    def interrupt_until_it_ends(self) -> None:
        """Ctrl-C again and again, with time to react in between."""

        def ended() -> bool:
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.interrupt()
                return False
            return True

        wait_until(ended, what="the end after several signals", deadline_s=DEADLINE_S)

    def _outcome(self) -> Outcome:
        return Outcome(
            code=-1 if self._process.returncode is None else self._process.returncode,
            out=self._out.read_text(encoding="utf-8", errors="replace"),
            err=self._err.read_text(encoding="utf-8", errors="replace"),
            root=self.root,
        )


def config_of(outcome: Outcome) -> Path:
    """The file that a :class:`Game` has started a run with."""
    return outcome.root.parents[1] / f"{outcome.root.name}.yaml"


class Game:
    """Makes runs of one set of tiny models and data.

    Args:
        directory: Where models, data and runs lie.
        address: Of the cluster that runs use unless they are to start their own.
    """

    def __init__(self, directory: Path, address: str) -> None:
        self.directory = directory
        self._address = address
        self.data = write_rows(directory / "data.jsonl", make_rows())
        self.policy = make_tiny_model(directory / "policy", style="chatml", seed=1)
        self.critic = make_tiny_model(directory / "critic", style="bracket", seed=2)

    def config(self, name: str) -> Path:
        """The file of the ordinary config under a name."""
        config = json.loads(json.dumps(_CONFIG))
        config |= {"name": name, "output_dir": str(self.directory / "runs")}
        config["data"]["train"] = [str(self.data)]
        config["policy"]["model"]["model"] = str(self.policy)
        config["critic"]["model"]["model"] = str(self.critic)
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def start(
        self,
        name: str,
        *overrides: str,
        resume: str | None = None,
        own_cluster: bool = False,
        program: str | None = None,
        environment: Mapping[str, str] | None = None,
        fit: str | None = None,
    ) -> Running:
        """Start ``gad-ray train`` or ``fit`` on the tests' cluster, or with no cluster to be found.

        Args:
            name: Of the run and its config.
            overrides: ``key=value``.
            resume: As on the command line.
            own_cluster: Whether the run must start a cluster itself.
            program: Module that is run in place of ``gad-ray``.
            environment: Variables besides the tests' own.
            fit: Method of an offline fit, whose directory is called NAME-METHOD; a game when None.
        """
        variables = {**ray_environment(), **(environment or {})}
        if not own_cluster:
            variables["RAY_ADDRESS"] = self._address
        command = ["gad-ray"] if program is None else [sys.executable, "-m", program]
        command += ["train"] if fit is None else ["fit", fit]
        command += [str(self.config(name)), *overrides]
        if resume is not None:
            command += ["--resume", resume]
        root = self.directory / "runs" / (name if fit is None else f"{name}-{fit}")
        assert resume is not None or not root.exists(), f"another test has made a run called {name}"
        return Running(command, root, variables)

    def play(self, name: str, *overrides: str, **options: Any) -> Outcome:
        """Start a run and wait for its end."""
        return self.start(name, *overrides, **options).wait()


class SharedRuns:
    """Runs that are played once, by whichever process of the tests comes first.

    Args:
        game: Plays them.
        directory: All processes see it, and no other tests.
    """

    def __init__(self, game: Game, directory: Path) -> None:
        self._game = game
        self._directory = directory

    def play(self, name: str, *overrides: str, **options: Any) -> Outcome:
        """How a run has ended, which is played now if it was not yet."""
        kept = self._directory / f"{name}.outcome.json"
        with FileLock(kept.with_suffix(".lock")):
            if not kept.exists():
                outcome = self._game.play(name, *overrides, **options)
                kept.write_text(json.dumps({**asdict(outcome), "root": str(outcome.root)}))
            told = json.loads(kept.read_text())
        return Outcome(**{**told, "root": Path(told["root"])})
