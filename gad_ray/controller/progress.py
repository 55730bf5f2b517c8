"""What a run tells of itself while it goes: metrics, live line, health, events."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Self

import psutil

from gad_ray.activity import activity
from gad_ray.batch import Metrics, SamplingSettings
from gad_ray.config import RunConfig
from gad_ray.controller.live_report import LiveReport
from gad_ray.controller.stall_watchdog import StallWatchdog
from gad_ray.errors import HealthError
from gad_ray.findings import Severity
from gad_ray.health import HealthMonitor, RunFinding
from gad_ray.health.course import READY, READY_OVER
from gad_ray.health.facts import SamplingFacts, facts_of
from gad_ray.health.monitor import STEP_TIME_RATIO
from gad_ray.interrupt import Interrupted
from gad_ray.observability.console import LiveLine
from gad_ray.observability.records import ScoreRecordWriter
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.observability.sinks import JsonlSink, MultiSink, RayPrometheusSink, TensorBoardSink

_GIB = 2**30


class Progress:
    """A context that takes each step's metrics to where they are shown and kept.

    Args:
        config: The run.
        directory: Where everything is written.
        stage_steps: Stage → number of its steps, in order.
        steps_per_epoch: Steps that take the prompts once around, for the rules that look at an epoch.

    Attributes:
        peak_memory_gib: Largest memory seen of the driver and the actors together, shared pages counted once.
        timing: Seconds by part, over all steps so far.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        *,
        stage_steps: Mapping[str, int],
        steps_per_epoch: int | None = None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._line = LiveLine(stage_steps=stage_steps)
        self._last_step = sum(stage_steps.values())
        self._facts = facts_of(config, steps_per_epoch=steps_per_epoch)
        self._health = self._new_monitor()
        # Held while the monitor is asked or told: the watch asks from a thread of its own.
        self._lock = threading.Lock()
        self._watch = StallWatchdog(self._report_wait)
        self._jsonl = JsonlSink(directory.metrics_jsonl)
        self._sinks = MultiSink([self._jsonl, TensorBoardSink(directory.tensorboard), RayPrometheusSink()])
        self._live_report = LiveReport(directory.root, refresh_s=config.report.refresh_s)
        self.pids: Sequence[int] = ()
        self.peak_memory_gib = 0.0
        self.timing: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._line.__enter__()
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        self._line.__exit__(kind, error, trace)
        self._sinks.close()
        # A stop that health asked for has its own event.
        if isinstance(error, Exception) and not isinstance(error, HealthError):
            self.event("failed", error=str(error))
        elif isinstance(error, Interrupted):
            self.event("stopped", signal=error.signal_number)
        self._tell_of_report(self._live_report.finish())

    def step(self, *, step: int, stage: str, metrics: Metrics) -> list[RunFinding]:
        """Log one step, judge its health, show it.

        Returns:
            The health rules that began to hold.
        """
        with self._lock:
            findings = self._health.observe(step=step, stage=stage, metrics=metrics)
            held, ratio = self._health.held, self._health.step_time_ratio
        memory = self._memory_bytes()
        logged = {
            **metrics,
            "perf/memory_bytes": float(memory),
            "perf/memory_peak_bytes": max(float(memory), self.peak_memory_gib * _GIB),
            "health/findings": float(len(findings)),
            "health/active_rules": float(len(held)),
            "health/critical_rules": float(sum(finding.severity is Severity.CRITICAL for finding in held)),
        }
        if ratio is not None:
            logged[STEP_TIME_RATIO] = ratio
        self._count(logged)
        self._sinks.log(step=step, stage=stage, metrics=logged)
        self._line.step(step=step, stage=stage, metrics=metrics)
        for finding in findings:
            self._report(finding)
        self._tell_of_report(self._live_report.step_done())
        if step < self._last_step:
            self._watch.begin()
        else:
            # What comes after the last step is no step.
            self._watch.rest()
        return findings

    def evaluated_with(self, sampling: SamplingSettings) -> None:
        """Let the health rules know how the responses were drawn on which the critic is evaluated."""
        drawn = SamplingFacts.of(sampling)
        self._facts = self._facts.model_copy(update={"evaluation_sampling": drawn})
        with self._lock:
            self._health.evaluated_with(drawn)

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps that take the prompts once around; None where that is not known."""
        return self._facts.steps_per_epoch

    @property
    def ready(self) -> bool:
        """Whether the critic is ready for the game, after the last step."""
        with self._lock:
            return self._health.meets(READY, over=READY_OVER)

    def take_lengths(self, stage_steps: Mapping[str, int]) -> None:
        """Go by other lengths of the stages from now on."""
        self._line.take(stage_steps)
        self._last_step = sum(stage_steps.values())

    @property
    def active_rules(self) -> frozenset[str]:
        """Names of the health rules that hold after the last step."""
        with self._lock:
            return self._health.active

    def take_settings(self, config: RunConfig) -> None:
        """Judge and advise from these settings from the next step on."""
        with self._lock:
            self._health.take_settings(config)

    @contextmanager
    def pause(self, text: str) -> Generator[None]:
        """Show that the run waits for its user; meanwhile no step is missed."""
        self._watch.rest()
        with activity(text):
            yield
        self._watch.begin()

    def info(self, text: str) -> None:
        """Say something above the live line."""
        self._line.info(text)

    def warn(self, what: str, text: str) -> None:
        """Warn above the live line.

        Args:
            what: What it is about.
            text: What happened.
        """
        self._line.warn(what, text)

    def event(self, name: str, **content: object) -> None:
        """Note what happened besides the steps."""
        event = {"time": time.time(), "event": name, **content}
        with self._directory.events_jsonl.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, default=str) + "\n")

    def position(self) -> int:
        """Bytes of metrics.jsonl, all on disk."""
        return self._jsonl.position()

    def rewind(self, *, step: int, metrics_bytes: int) -> None:
        """Forget what was written after a checkpoint: the resumed run writes it anew."""
        self._watch.rest()
        self._jsonl.truncate_to(metrics_bytes)
        self._sinks.close()
        self._jsonl = JsonlSink(self._directory.metrics_jsonl)
        board = TensorBoardSink(self._directory.tensorboard, purge_step=step + 1)
        self._sinks = MultiSink([self._jsonl, board, RayPrometheusSink()])
        records = ScoreRecordWriter(
            self._directory.records, max_rows_per_step=self._config.records.max_rows_per_step
        )
        records.discard_after(step)
        self._health = self._new_monitor()
        self.timing.clear()
        self._remember()

    def _remember(self) -> None:
        """Take up what the steps before a checkpoint have told: health rules look back, and sums go on."""
        for line in self._directory.metrics_jsonl.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            nonfinite = row.pop("nonfinite", {})
            step, stage = row.pop("step"), row.pop("stage")
            del row["time"]
            metrics = {name: float(nonfinite.get(name, value)) for name, value in row.items()}
            # What it finds was reported when it happened.
            self._health.observe(step=step, stage=stage, metrics=metrics)
            self._count(metrics)

    def _count(self, metrics: Metrics) -> None:
        self.peak_memory_gib = max(self.peak_memory_gib, metrics["perf/memory_bytes"] / _GIB)
        for name, value in metrics.items():
            if name.startswith("timing_s/"):
                part = name.removeprefix("timing_s/")
                self.timing[part] = self.timing.get(part, 0.0) + value

    def _new_monitor(self) -> HealthMonitor:
        return HealthMonitor(self._config, facts=self._facts, language=self._config.health.language)

    def _report_wait(self, seconds: float) -> bool:
        with self._lock:
            findings = self._health.waiting(seconds)
        for finding in findings:
            self._report(finding)
        return bool(findings)

    def _report(self, finding: RunFinding) -> None:
        self._line.warn(finding.rule, finding.text)
        self.event("health", **asdict(finding))

    def _tell_of_report(self, trouble: str | None) -> None:
        """A report that cannot be written is told of, and the run goes on."""
        if trouble is not None:
            self._line.warn("report", f"it could not be written: {trouble}")
            self.event("report_failed", error=trouble)

    def _memory_bytes(self) -> int:
        """Memory that ends with this run: private pages of its processes, plus Ray's shared store once."""
        total = 0
        for pid in (None, *self.pids):
            try:
                total += psutil.Process(pid).memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                # An actor of another machine, or one that has just ended.
                continue
        return total
