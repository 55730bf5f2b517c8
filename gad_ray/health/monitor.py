"""Health rules applied to a run, step by step."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gad_ray.config import RunConfig
from gad_ray.health.conditions import Condition, holds, signals_of
from gad_ray.health.facts import RunFacts, SamplingFacts, facts_of
from gad_ray.health.findings import RunFinding, make_finding
from gad_ray.health.rules import RULES, UNKNOWN_STAGE, Rule
from gad_ray.health.signals import SOURCES, Signal, nonfinite_names, read_signals, step_seconds
from gad_ray.health.texts import Language

STEP_TIME_RATIO = "perf/step_time_ratio"
"""The metric that tells how long a step took beside those before it."""

_REGULAR_FROM, _LOST_AFTER = 5, 3
"""A metric that so many steps in a row have told is missed when so many in a row do not."""

_PACE_OVER, _PACE_FROM = 20, 5
"""Steps whose median time is a run's pace: the last so many, once there are so many."""


@dataclass(slots=True)
class _Track:
    """A signal's numbers in a stage: (row of the stage, number of the step, value), the latest last.

    Attributes:
        numbers: As many as the longest window holds.
        gap: Most rows from one number to the next so far: a log may tell a metric every few steps only.
    """

    numbers: deque[tuple[int, int, float]]
    gap: int = 1

    def take(self, row: int, step: int, value: float) -> None:
        """One more number."""
        if self.numbers:
            self.gap = max(self.gap, row - self.numbers[-1][0])
        self.numbers.append((row, step, value))

    def latest(self, length: int, *, row: int, sparse: bool) -> list[tuple[int, float]]:
        """The last ``length`` numbers with their steps; none where they have stopped coming.

        Of a sparse signal, all: over a window there would be nothing to compare.
        """
        if not self.numbers or (not sparse and row - self.numbers[-1][0] >= self.gap):
            return []
        kept = list(self.numbers) if sparse else list(self.numbers)[-length:]
        return [(step, value) for _, step, value in kept]


@dataclass(slots=True)
class _Presence:
    """Of one metric in a stage: rows in a row that told it, and how many rows and since which step not."""

    told: int = 0
    missing: int = 0
    missing_since: int = 0


class HealthMonitor:
    """Watches a run's metrics and reports each rule when it begins to hold.

    A rule is reported again only after it has stopped holding. Windows do not reach across stages.

    Args:
        config: The run's configuration, from which advice takes its values.
        facts: What else is known of the run; what its configuration tells when absent.
        rules: The rules to apply.
        grace: Whether the warm-up's beginning is left in peace, as far as a rule says so.
        language: Of the findings' texts.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        facts: RunFacts | None = None,
        rules: Sequence[Rule] = RULES,
        grace: bool = True,
        language: Language = "en",
    ) -> None:
        self._config = config
        self._facts = facts_of(config) if facts is None else facts
        self._rules = tuple(rules)
        self._grace = grace
        self._language: Language = language
        self._longest = max((rule.steps(self._facts.steps_per_epoch) for rule in self._rules), default=1)
        self._stage: str | None = None
        self._first_stage: str | None = None
        self._step = 0
        self._steps_in_stage = 0
        self._history: dict[Signal, _Track] = {}
        self._nonfinite: dict[str, int] = {}
        self._presence: dict[str, _Presence] = {}
        self._pace: deque[float] = deque(maxlen=_PACE_OVER)
        self._held: dict[str, RunFinding] = {}
        self.step_time_ratio: float | None = None

    def take_settings(self, config: RunConfig) -> None:
        """Go by these settings from the next step on; what was observed stays."""
        told = facts_of(config)
        changed = {"loss_temperature": told.loss_temperature, "kl_coefficient": told.kl_coefficient}
        self._config = config
        self._facts = self._facts.model_copy(update=changed)

    @property
    def active(self) -> frozenset[str]:
        """Names of the rules that hold at present."""
        return frozenset(self._held)

    @property
    def held(self) -> tuple[RunFinding, ...]:
        """The rules that hold at present, each as it stood when it was last judged, in the table's order."""
        return tuple(self._held[rule.name] for rule in self._rules if rule.name in self._held)

    def evaluated_with(self, sampling: SamplingFacts) -> None:
        """Know from here on how the responses were drawn on which the critic is tested."""
        self._facts = self._facts.model_copy(update={"evaluation_sampling": sampling})

    def observe(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> list[RunFinding]:
        """Take the metrics of one step, all of them at once.

        Values that are not finite are left out of the windows, and a finding of their own.

        Args:
            step: Number of the step.
            stage: Its stage.
            metrics: Its metrics by registered name.

        Returns:
            The rules that began to hold with this step, in the table's order.
        """
        if stage != self._stage:
            self._stage = stage
            self._first_stage = self._first_stage or stage
            self._steps_in_stage = 0
            self._history = {signal: _Track(deque(maxlen=self._longest)) for signal in Signal}
            self._presence.clear()
            self._pace.clear()
        self._step = step
        self._steps_in_stage += 1
        found = read_signals(self._with_pace(metrics), self._facts)
        found[Signal.NUM_LOST] = float(len(self._lost(metrics)))
        for name in nonfinite_names(metrics):
            self._nonfinite.setdefault(name, step)
        for signal, value in found.items():
            self._history[signal].take(self._steps_in_stage, step, value)
        return self._take({rule.name: self._judge(rule) for rule in self._rules})

    def meets(self, condition: Condition, *, over: int) -> bool:
        """Whether a condition holds over the last steps of the stage, with a number of each in every one of them."""
        if self._stage is None:
            return False
        windows = {
            signal: [value for _, value in self._numbers(signal, over)] for signal in signals_of(condition)
        }
        # What a log does not tell at all leaves a condition's negation standing; too little of it does not.
        known = {signal: values for signal, values in windows.items() if values}
        return all(len(values) >= over for values in known.values()) and holds(condition, known)

    def conclude(self) -> list[RunFinding]:
        """Judge the rules whose windows are not full on what there is of them: nothing more will come.

        Returns:
            The rules that began to hold thereby, in the table's order.
        """
        if self._stage is None:
            return []
        judged: dict[str, RunFinding | bool] = {rule.name: self._judge_on_less(rule) for rule in self._rules}
        return self._take(judged)

    def waiting(self, seconds: float) -> list[RunFinding]:
        """The rules that hold while a step lets itself be waited for; they do not become active.

        Args:
            seconds: Time since the last step.
        """
        if self._stage is None or len(self._pace) < _PACE_FROM:
            return []
        windows = {
            Signal.STEP_SECONDS: [seconds],
            Signal.STEP_TIME_RATIO: [seconds / statistics.median(self._pace)],
        }
        return [
            self._finding(rule, windows, judged_on=1)
            for rule in self._rules
            if set(signals_of(rule.condition)) <= set(windows) and holds(rule.condition, windows)
        ]

    def _with_pace(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """The metrics with the step's time beside those of its stage so far."""
        seconds = step_seconds(metrics)
        self.step_time_ratio = None
        if seconds is None or not seconds > 0.0:
            return metrics
        if len(self._pace) >= _PACE_FROM:
            self.step_time_ratio = seconds / statistics.median(self._pace)
        self._pace.append(seconds)
        return metrics if self.step_time_ratio is None else {**metrics, STEP_TIME_RATIO: self.step_time_ratio}

    def _lost(self, metrics: Mapping[str, float]) -> dict[str, int]:
        """Metrics that steps told regularly and do not tell any more → the first step without; takes note of a step's."""
        for name in metrics:
            # What a run logs of itself beside its step's metrics is there only when it is read back.
            if not name.startswith(("health/", "perf/")):
                self._presence.setdefault(name, _Presence())
        for name, presence in self._presence.items():
            if name in metrics:
                presence.told += 1
                presence.missing = 0
            elif presence.told >= _REGULAR_FROM:
                presence.missing_since = presence.missing_since if presence.missing else self._step
                presence.missing += 1
            else:
                presence.told = 0
        return self._missed

    @property
    def _missed(self) -> dict[str, int]:
        return {
            name: presence.missing_since
            for name, presence in sorted(self._presence.items())
            if presence.missing >= _LOST_AFTER
        }

    def _take(self, judged: Mapping[str, RunFinding | bool]) -> list[RunFinding]:
        """Note which rules hold; those for which it is too early to tell (True) stay as they are.

        What held at the end of the last stage is then neither confirmed nor lifted.
        """
        names = {
            name
            for name, found in judged.items()
            if isinstance(found, RunFinding) or (found and name in self._held)
        }
        begun: list[RunFinding] = []
        for rule in self._rules:
            found = judged[rule.name]
            if rule.name not in names or names & set(rule.yields_to):
                self._held.pop(rule.name, None)
            elif isinstance(found, RunFinding):
                if rule.name not in self._held:
                    begun.append(found)
                self._held[rule.name] = found
        return begun

    def _judge(self, rule: Rule) -> RunFinding | bool:
        """The finding where the rule holds, False where it does not, True where it is too early to tell."""
        assert self._stage is not None
        if not self._applies(rule):
            return False
        length = rule.steps(self._facts.steps_per_epoch)
        if self._steps_in_stage < length or self._position < self._grace_of(rule) + length:
            return True
        windows = self._windows(rule, length, full=True)
        return holds(rule.condition, windows) and self._finding(rule, windows, judged_on=length)

    def _judge_on_less(self, rule: Rule) -> RunFinding | bool:
        """The same for a rule of which some window is not full; one that was judged before stays as it is."""
        if not self._applies(rule):
            return False
        length = rule.steps(self._facts.steps_per_epoch)
        there = max(
            (len(self._numbers(s, length)) for s in signals_of(rule.condition) if not SOURCES[s].sparse),
            default=0,
        )
        there = min(there, length)
        early = there < rule.shortest or self._position < self._grace_of(rule) + there
        if early or (there == length and self._steps_in_stage >= length):
            return True
        windows = self._windows(rule, length, full=False)
        return holds(rule.condition, windows) and self._finding(rule, windows, judged_on=there)

    def _applies(self, rule: Rule) -> bool:
        return self._stage in rule.stages or self._stage == UNKNOWN_STAGE

    @property
    def _position(self) -> int:
        """Steps of the stage so far: a log that begins late still tells how many came before, in the first stage."""
        return (
            max(self._steps_in_stage, self._step)
            if self._stage == self._first_stage
            else self._steps_in_stage
        )

    def _grace_of(self, rule: Rule) -> int:
        return rule.warmup_grace if self._grace and self._stage in ("warmup", UNKNOWN_STAGE) else 0

    def _windows(self, rule: Rule, length: int, *, full: bool) -> dict[Signal, list[float]]:
        """The last values of the rule's signals: ``length`` where windows must be ``full``, else what there is.

        Of a sparse signal, all that the stage has told: over a window there would be nothing to compare.
        """
        windows: dict[Signal, list[float]] = {}
        remarked = () if rule.remark is None else signals_of(rule.remark)
        for signal in (*signals_of(rule.condition), *remarked):
            values = [value for _, value in self._numbers(signal, length)]
            if SOURCES[signal].sparse or len(values) >= length or not full:
                windows[signal] = values
        return windows

    def _numbers(self, signal: Signal, length: int) -> list[tuple[int, float]]:
        return self._history[signal].latest(length, row=self._steps_in_stage, sparse=SOURCES[signal].sparse)

    def _finding(
        self, rule: Rule, windows: Mapping[Signal, Sequence[float]], *, judged_on: int
    ) -> RunFinding:
        assert self._stage is not None
        length = rule.steps(self._facts.steps_per_epoch)
        steps = [step for s in signals_of(rule.condition) for step, _ in self._numbers(s, length)]
        return make_finding(
            rule,
            windows,
            stage=self._stage,
            step=self._step,
            window=rule.steps(self._facts.steps_per_epoch),
            judged_on=judged_on,
            numbers=(min(steps), max(steps)) if steps else None,
            metrics={"{metrics}": self._nonfinite, "{lost}": self._missed},
            config=self._config,
            facts=self._facts,
            language=self._language,
        )
