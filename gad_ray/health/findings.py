"""What is reported of a rule that holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gad_ray.config import RunConfig
from gad_ray.findings import Finding
from gad_ray.health.conditions import Windows, holds, level, signals_of
from gad_ray.health.facts import RunFacts
from gad_ray.health.phrases import say, signal_name
from gad_ray.health.rules import Rule
from gad_ray.health.signals import Signal
from gad_ray.health.texts import Language, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinding(Finding):
    """A rule that holds for a run.

    Attributes:
        stage: The stage in which it holds.
        step: The step with which its window ended.
        window: Steps that the rule looks at.
        judged_on: Steps that it was judged on: fewer, where the run ended before.
        values: What was measured: the mean over the window of each signal that the rule looks at.
        numbers: First and last step whose numbers were looked at; None where no step's were.
        language: Of the texts.
    """

    stage: str
    step: int
    window: int
    judged_on: int
    values: Mapping[str, float]
    numbers: tuple[int, int] | None
    language: Language = "en"

    @property
    def text(self) -> str:
        """The finding in a line: what was measured, what it means, what to try."""
        tries = (
            " " + say("try", self.language, overrides=say("or", self.language).join(self.overrides))
            if self.overrides
            else ""
        )
        return f"{self.evidence}: {self.meaning}{tries}"


def evidence_of(
    values: Mapping[str, float], language: Language, *, window: int = 1, judged_on: int = 1
) -> str:
    """What was measured, and on how much where that is less than a window."""
    measured = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    if judged_on >= window:
        return measured
    return f"{measured} ({say('partial', language, there=judged_on, window=window)})"


def make_finding(
    rule: Rule,
    windows: Windows,
    *,
    stage: str,
    step: int,
    window: int,
    judged_on: int,
    numbers: tuple[int, int] | None,
    metrics: Mapping[str, Mapping[str, int]],
    config: RunConfig,
    facts: RunFacts,
    language: Language,
) -> RunFinding:
    """The report of a rule that holds over ``windows``.

    Args:
        metrics: Place in the rule's text → names of metrics that stand there, with the first step of each.
    """
    values = _values(rule, windows, facts, language)
    return RunFinding(
        rule=rule.name,
        severity=rule.severity,
        evidence=evidence_of(values, language, window=window, judged_on=judged_on),
        meaning=_meaning(rule, windows, facts, metrics, language),
        overrides=tuple(_overrides(rule, config, facts)),
        stage=stage,
        step=step,
        window=window,
        judged_on=judged_on,
        values=values,
        numbers=numbers,
        language=language,
    )


def _values(rule: Rule, windows: Windows, facts: RunFacts, language: Language) -> dict[str, float]:
    looked_at = [signal for signal in signals_of(rule.condition) if windows.get(signal)]
    values = {signal_name(signal, language): level(signal, windows) for signal in looked_at}
    if Signal.SAMPLING_DIFFERENCES in looked_at:
        for name, (trained, tested) in facts.sampling_differences.items():
            values |= {
                say("in-training", language, what=name): trained,
                say("in-evaluation", language, what=name): tested,
            }
    return values


_SHOWN_METRICS = 6


def _meaning(
    rule: Rule,
    windows: Windows,
    facts: RunFacts,
    metrics: Mapping[str, Mapping[str, int]],
    language: Language,
) -> str:
    text = text_of(rule.name, language)
    differences = facts.sampling_differences.items()
    told = [
        say("differs", language, what=name, training=f"{trained:g}", evaluation=f"{tested:g}")
        for name, (trained, tested) in differences
    ]
    meaning = text.meaning.replace("{sampling}", say("and", language).join(told))
    for place, names in metrics.items():
        shown = [say("since-step", language, what=name, step=step) for name, step in names.items()]
        more = ["…"] if len(shown) > _SHOWN_METRICS else []
        meaning = meaning.replace(place, say("and", language).join([*shown[:_SHOWN_METRICS], *more]))
    if rule.remark is not None and holds(rule.remark, windows):
        meaning += say("space", language) + text.remark
    return meaning


def _overrides(rule: Rule, config: RunConfig, facts: RunFacts) -> Iterator[str]:
    for item in rule.advice:
        override = item.override(config, facts)
        if override is not None:
            yield override
