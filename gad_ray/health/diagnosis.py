"""The verdict over a whole log: which rules fired, when, what is well, and what to do first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gad_ray.findings import Severity, worst_first
from gad_ray.health import bands
from gad_ray.health.conditions import (
    Above,
    AllOf,
    Below,
    Condition,
    Falls,
    Not,
    Rises,
    holds,
    signals_of,
    within,
)
from gad_ray.health.course import course_of
from gad_ray.health.findings import RunFinding
from gad_ray.health.history import History, Note
from gad_ray.health.monitor import HealthMonitor
from gad_ray.health.phrases import say, signal_name
from gad_ray.health.rules import RULES, UNKNOWN_STAGE, Rule
from gad_ray.health.signals import SOURCES, Signal, read_signals
from gad_ray.health.texts import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Something that is well, or as it should be.

    Attributes:
        name: Key of what is said.
        stages: The stages it is said in.
        window: Last steps of the stage that it looks at.
        condition: When it is said.
    """

    name: str
    stages: tuple[str, ...] = ("warmup", "adversarial", UNKNOWN_STAGE)
    window: int = 5
    condition: Condition


_DIFFERENCE_IN_BAND = within(Signal.SCORE_DIFF, bands.SCORE_DIFF)
_NOT_IN_THE_GAME = ("warmup", UNKNOWN_STAGE)

OBSERVATIONS: tuple[Observation, ...] = (
    Observation(
        name="in-target-band",
        stages=_NOT_IN_THE_GAME,
        condition=AllOf((*within(Signal.D_ACC, bands.D_ACC), *_DIFFERENCE_IN_BAND)),
    ),
    Observation(
        name="above-target-band",
        stages=_NOT_IN_THE_GAME,
        condition=AllOf(
            (
                Not(Below(Signal.D_ACC, bands.D_ACC[1])),
                Below(Signal.D_ACC, bands.D_ACC_LIMIT),
                *_DIFFERENCE_IN_BAND,
                Not(Above(Signal.SIGMOID_MEAN, bands.SATURATED)),
            )
        ),
    ),
    Observation(
        name="gradient-healthy",
        condition=AllOf(within(Signal.CRITIC_GRAD_NORM, bands.GRAD_NORM)),
    ),
    Observation(name="identical-text-alike", condition=Below(Signal.IDENTICAL_DIFF, 1e-5)),
    Observation(
        name="negative-reward-explained", stages=_NOT_IN_THE_GAME, condition=Below(Signal.REWARD, 0.0)
    ),
    Observation(
        name="closer-than-the-critic-sees",
        stages=("adversarial",),
        window=20,
        condition=AllOf((Below(Signal.D_ACC, 0.60), Falls(Signal.TEACHER_NLL, 0.1))),
    ),
    Observation(
        name="course-as-expected",
        stages=("adversarial",),
        window=50,
        condition=AllOf((Rises(Signal.REWARD, 0.1), Falls(Signal.SCORE_DIFF, 0.1))),
    ),
)
"""What is said of a run beside the rules that fired, judged on the end of its last stage."""


_VERL_KEYS = {
    "policy.optimizer.lr": "actor_rollout_ref.actor.optim.lr",
    "policy.kl.coefficient": "actor_rollout_ref.actor.kl_loss_coef",
    "policy.advantage.name": "algorithm.adv_estimator",
    "critic.optimizer.lr": "critic.optim.lr",
    "critic.optimizer.grad_clip": "critic.grad_clip",
    "rollout.temperature": "actor_rollout_ref.rollout.temperature",
}
"""Our keys of what verl has too, as it calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A rule that fired.

    Attributes:
        finding: The rule as it stood when it held last.
        steps: The steps at which it held, in order.
        lasting: Whether it holds at the end.
    """

    finding: RunFinding
    steps: tuple[int, ...]
    lasting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is said of a log.

    Attributes:
        history: The log.
        fired: The rules that fired, in the table's order.
        observations: What is well, in words.
        course: How the run stands beside the expected course, in words.
        verdict: All of it in a sentence.
        notes: What the reader must know of the source, in words.
        language: Of the texts.
    """

    history: History
    fired: tuple[Fired, ...]
    observations: tuple[str, ...]
    course: tuple[str, ...]
    verdict: str
    notes: tuple[str, ...]
    language: Language


def diagnose(history: History, *, language: Language = "en", rules: Sequence[Rule] = RULES) -> Diagnosis:
    """Apply the rules to every step of a log, and sum up.

    Windows that the end of a stage leaves unfilled are judged on what there is of them; their evidence says so.
    """
    rows = history.rows
    longest_grace = max((rule.warmup_grace for rule in rules), default=0)
    monitor = HealthMonitor(
        history.config_for_advice,
        facts=history.facts,
        rules=rules,
        # Without numbers, a few rows are a glimpse of a run and not its beginning.
        grace=history.numbered or len(rows) > longest_grace,
        language=language,
    )
    latest: dict[str, RunFinding] = {}
    steps: dict[str, set[int]] = {}
    lasting: frozenset[str] = frozenset()
    stage_begin = 0
    for number, row in enumerate(rows):
        if row.stage != rows[stage_begin].stage:
            stage_begin = number
        monitor.observe(step=row.step, stage=row.stage, metrics=row.metrics)
        for finding in monitor.held:
            # One of an earlier step was neither confirmed nor lifted by this one.
            if finding.step == row.step:
                latest[finding.rule] = finding
                steps.setdefault(finding.rule, set()).add(row.step)
        if number + 1 < len(rows) and rows[number + 1].stage == row.stage:
            continue
        before = monitor.active
        monitor.conclude()
        for finding in monitor.held:
            latest[finding.rule] = finding
            if finding.rule not in before:
                looked_at = rows[max(stage_begin, number + 1 - finding.judged_on) : number + 1]
                steps.setdefault(finding.rule, set()).update(seen.step for seen in looked_at)
        lasting = monitor.active
    if history.waited_s is not None:
        for finding in monitor.waiting(history.waited_s):
            latest[finding.rule] = finding
            steps.setdefault(finding.rule, set()).add(finding.step)
            lasting = lasting | {finding.rule}
    fired = tuple(
        Fired(finding=latest[rule.name], steps=tuple(sorted(steps[rule.name])), lasting=rule.name in lasting)
        for rule in rules
        if rule.name in latest
    )
    seen = _observations(history)
    return Diagnosis(
        history=history,
        fired=fired,
        observations=tuple(say(name, language) for name in seen),
        course=_course(history, language),
        verdict=_verdict(history, fired, seen, language, rules),
        notes=tuple(note.text(language) for note in _notes(history, fired)),
        language=language,
    )


def _course(history: History, language: Language) -> tuple[str, ...]:
    length = None if history.config is None else history.config.stages.warmup.steps
    return tuple(
        say(
            "course",
            language,
            step=one.step,
            field_step=one.field_step,
            found=", ".join(f"{signal_name(s, language)} {value:.3g}" for s, value in one.found.items()),
            standing=say(one.standing.value, language),
            expected=say(one.expected, language),
        )
        for one in course_of(history.rows, history.facts, warmup_steps=length)
    )


def _observations(history: History) -> list[str]:
    """Names of what is well at the end of the last stage."""
    stage = history.rows[-1].stage
    signals = [read_signals(row.metrics, history.facts) for row in history.rows if row.stage == stage]
    seen: list[str] = []
    for observation in OBSERVATIONS:
        if stage not in observation.stages:
            continue
        windows = {
            signal: [values[signal] for values in signals[-observation.window :] if signal in values]
            for signal in signals_of(observation.condition)
        }
        windows |= {s: [v[s] for v in signals if s in v] for s in windows if SOURCES[s].sparse}
        if holds(observation.condition, windows):
            seen.append(observation.name)
    return seen


def _verdict(
    history: History, fired: Sequence[Fired], seen: Sequence[str], language: Language, rules: Sequence[Rule]
) -> str:
    stage = history.rows[-1].stage
    lasting = worst_first([item.finding for item in fired if item.lasting])
    separator = say("and", language)
    if lasting:
        # The worst decides, and its first override is the first to try.
        phrase = "sick" if lasting[0].severity is Severity.CRITICAL else "unhealthy"
        text = say(phrase, language, rules=separator.join(finding.rule for finding in lasting))
        override = next((finding.overrides[0] for finding in lasting if finding.overrides), None)
        return text if override is None else say("begin-with", language, verdict=text, override=override)
    if fired:
        return say("recovered", language, rules=separator.join(item.finding.rule for item in fired))
    if stage != UNKNOWN_STAGE and not any(stage in rule.stages for rule in rules):
        return say("no-rules-here", language, stage=stage)
    if stage == "adversarial":
        return say("healthy-game", language)
    ready = "in-target-band" in seen or "above-target-band" in seen
    if stage == UNKNOWN_STAGE:
        return say("healthy-critic" if ready else "healthy-game", language)
    return say("healthy-warm-up-ready" if ready else "healthy-warm-up", language)


def _notes(history: History, fired: Sequence[Fired]) -> list[Note]:
    notes = list(history.notes)
    asked = {override.partition("=")[0] for item in fired for override in item.finding.overrides}
    theirs = [f"{ours} = {name}" for ours, name in _VERL_KEYS.items() if ours in asked]
    if history.kind == "verl" and theirs:
        notes.append(Note.of("verl-keys", keys=", ".join(theirs)))
    if not history.numbered:
        notes.append(Note.of("unnumbered"))
    if any(row.stage == UNKNOWN_STAGE for row in history.rows):
        notes.append(Note.of("stage-unknown"))
    if history.config is None:
        notes.append(Note.of("config-unknown"))
    return notes
