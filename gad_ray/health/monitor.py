"""Health rules applied to a run, step by step."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gad_ray.config import RunConfig
from gad_ray.health.conditions import holds, signals_of
from gad_ray.health.rules import RULES, Rule, Severity
from gad_ray.health.signals import SOURCES, Signal, read_signals


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that began to hold.

    Attributes:
        rule: The rule's name.
        severity: How bad it is.
        stage: The stage in which it began to hold.
        step: The step with which its window ended.
        values: What was measured: the mean over the window of each signal that the rule looks at.
        meaning: What it means.
        advice: ``key=value`` overrides that answer it, most promising first.
    """

    rule: str
    severity: Severity
    stage: str
    step: int
    values: Mapping[str, float]
    meaning: str
    advice: tuple[str, ...]

    @property
    def text(self) -> str:
        """The finding in a line: what was measured, what it means, what to try."""
        measured = ", ".join(f"{name} {value:.3g}" for name, value in self.values.items())
        tries = f" Try {' or '.join(self.advice)}." if self.advice else ""
        return f"{measured}: {self.meaning}{tries}"


class HealthMonitor:
    """Watches a run's metrics and reports each rule when it begins to hold.

    A rule is reported again only after it has stopped holding. Windows do not reach across stages.

    Args:
        config: The run's configuration, from which advice takes its values.
        rules: The rules to apply.
    """

    def __init__(self, config: RunConfig, *, rules: Sequence[Rule] = RULES) -> None:
        self._config = config
        self._rules = tuple(rules)
        self._longest = max((rule.window for rule in self._rules), default=1)
        self._stage: str | None = None
        self._steps_in_stage = 0
        self._history: dict[Signal, deque[float]] = {}
        self._active: set[str] = set()

    @property
    def active(self) -> frozenset[str]:
        """Names of the rules that hold at present."""
        return frozenset(self._active)

    def observe(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> list[Finding]:
        """Take the metrics of one step, all of them at once.

        Values that are not finite are left out of the windows.

        Args:
            step: Number of the step.
            stage: Its stage.
            metrics: Its metrics by registered name.

        Returns:
            The rules that began to hold with this step, in the table's order.
        """
        if stage != self._stage:
            self._stage = stage
            self._steps_in_stage = 0
            self._history = {signal: deque(maxlen=self._longest) for signal in Signal}
        self._steps_in_stage += 1
        for signal, value in read_signals(metrics).items():
            self._history[signal].append(value)
        return [finding for rule in self._rules if (finding := self._judge(rule, stage, step)) is not None]

    def _judge(self, rule: Rule, stage: str, step: int) -> Finding | None:
        if stage not in rule.stages:
            self._active.discard(rule.name)
            return None
        grace = rule.warmup_grace if stage == "warmup" else 0
        if self._steps_in_stage < grace + rule.window:
            # Too early to tell: what held at the end of the last stage is neither confirmed nor lifted.
            return None
        windows = self._windows(rule.window)
        if not holds(rule.condition, windows):
            self._active.discard(rule.name)
            return None
        if rule.name in self._active:
            return None
        self._active.add(rule.name)
        overrides = (item.override(self._config) for item in rule.advice)
        return Finding(
            rule=rule.name,
            severity=rule.severity,
            stage=stage,
            step=step,
            values={
                signal.value: statistics.fmean(windows[signal])
                for signal in signals_of(rule.condition)
                if signal in windows
            },
            meaning=rule.meaning,
            advice=tuple(override for override in overrides if override is not None),
        )

    def _windows(self, length: int) -> dict[Signal, list[float]]:
        """The last ``length`` values of every signal that has as many; the last one of a sparse signal."""
        windows: dict[Signal, list[float]] = {}
        for signal, values in self._history.items():
            needed = 1 if SOURCES[signal].sparse else length
            if len(values) >= needed:
                windows[signal] = list(values)[-needed:]
        return windows
