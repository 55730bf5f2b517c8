"""The verdict on one critic by itself: what it gives to texts, without the log of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from gad_ray.findings import Severity, worst_first
from gad_ray.health.critic_texts import CRITIC_TEXTS, tell
from gad_ray.health.diagnosis import Fired, diagnose
from gad_ray.health.findings import RunFinding, evidence_of
from gad_ray.health.history import History, Row
from gad_ray.health.phrases import say
from gad_ray.health.rules import RULES, UNKNOWN_STAGE
from gad_ray.health.texts import Language

COLLAPSED_STD = 0.1
EXTREME_VALUE = 10.0
FAR_MEAN = 5.0
PUNCTUATION_LIMIT = 0.3
SIMILAR_LIMIT = 0.5

_OF_SCORES = (
    "critic-overconfident",
    "critic-blind",
    "scores-too-far-apart",
    "scores-indistinct",
    "loss-saturated",
    "score-collapse",
    "extreme-scores",
)
"""Rules of a run that a critic's scores alone can break."""
_LIMITS = {"punctuation-decides": PUNCTUATION_LIMIT, "similar-answers-apart": SIMILAR_LIMIT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far a change of the text moves scores: sizes of the differences."""

    mean: float
    p95: float
    largest: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFigures:
    """Values of all tokens of all answers."""

    count: int
    mean: float
    std: float
    largest: float
    """Largest |v|."""
    share_large: float
    """Share with |v| > 10."""
    share_small: float
    """Share with |v| < 0.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticFigures:
    """What was measured of a critic on rows of data.

    Attributes:
        step: Optimiser steps that it has taken.
        num_rows: Rows of a prompt and a teacher's answer.
        num_pairs: Those with a student's answer too.
        num_nonfinite: Scores and values that are not finite; all other figures are of the finite ones.
        tokens: Values of the tokens of both sides' answers.
        scores: Names as on a run's board (``critic/…``) → figures of the scores of both sides, or of the teacher's alone.
        same_call: Largest difference of the same answer to itself in one call.
        same_apart: Largest difference of an answer scored alone to the same in its batch.
        same_tolerance: What rounding allows of that.
        punctuation: Final punctuation mark changed.
        similar: A word in the middle written twice.
    """

    step: int
    num_rows: int
    num_pairs: int
    num_nonfinite: int
    tokens: TokenFigures
    scores: Mapping[str, float]
    score_mean: float
    score_std: float
    score_largest: float
    same_call: float
    same_apart: float
    same_tolerance: float
    punctuation: Moved | None
    similar: Moved | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticVerdict:
    """The rules that a critic breaks, and all of it in a sentence."""

    fired: tuple[Fired, ...]
    observations: tuple[str, ...]
    verdict: str


def judge_critic(figures: CriticFigures, *, language: Language = "en") -> CriticVerdict:
    """Apply the rules of a critic by itself, and those of a run that its scores alone can break."""
    own = [_fired(*broken, step=figures.step, language=language) for broken in _broken(figures)]
    if figures.num_nonfinite:
        # Of what is left nothing is to be said.
        own, of_run, observations = own[:1], (), ()
    else:
        rules = tuple(rule for rule in RULES if rule.name in _OF_SCORES)
        row = Row(step=figures.step, stage=UNKNOWN_STAGE, metrics=figures.scores)
        # One look at a critic, wherever its training stands: no beginning of a run is spared.
        history = History(place="", kind="jsonl", rows=(row,), numbered=False)
        diagnosis = diagnose(history, language=language, rules=rules)
        # Here there is one measurement, and no window of steps that could be fuller.
        of_run = tuple(replace(one, finding=_at_once(one.finding)) for one in diagnosis.fired)
        observations = diagnosis.observations
    fired = (*own, *of_run)
    return CriticVerdict(fired=fired, observations=observations, verdict=_verdict(fired, language))


def _broken(figures: CriticFigures) -> Iterator[tuple[str, Severity, dict[str, float]]]:
    """Name, severity and evidence of every rule of a critic by itself that is broken."""
    tokens = figures.tokens
    if figures.num_nonfinite:
        yield "critic-not-finite", Severity.CRITICAL, {"not-finite": figures.num_nonfinite}
    if tokens.std < COLLAPSED_STD:
        yield "token-values-collapsed", Severity.CRITICAL, {"token-std": tokens.std}
    if tokens.largest > EXTREME_VALUE:
        evidence = {"token-max": tokens.largest, "token-large": tokens.share_large}
        yield "token-values-extreme", Severity.WARNING, evidence
    if abs(figures.score_mean) > FAR_MEAN:
        yield "mean-score-far-from-zero", Severity.WARNING, {"score-mean": figures.score_mean}
    if figures.same_call != 0.0 or figures.same_apart > figures.same_tolerance:
        evidence = {"same-call": figures.same_call, "same-apart": figures.same_apart}
        yield "same-text-scored-apart", Severity.CRITICAL, evidence
    for rule, phrase, moved in (
        ("punctuation-decides", "punctuation", figures.punctuation),
        ("similar-answers-apart", "similar", figures.similar),
    ):
        if moved is not None and moved.p95 >= _LIMITS[rule]:
            yield rule, Severity.WARNING, {phrase: moved.p95}


def _at_once(finding: RunFinding) -> RunFinding:
    """As of one measurement, in place of a window of steps that is not full."""
    evidence = evidence_of(finding.values, finding.language)
    return replace(finding, window=1, judged_on=1, numbers=None, evidence=evidence)


def _fired(
    rule: str, severity: Severity, evidence: Mapping[str, float], *, step: int, language: Language
) -> Fired:
    values = {tell(phrase, language): value for phrase, value in evidence.items()}
    finding = RunFinding(
        rule=rule,
        severity=severity,
        evidence=evidence_of(values, language),
        meaning=CRITIC_TEXTS[rule][language].format(limit=_LIMITS.get(rule)),
        stage=UNKNOWN_STAGE,
        step=step,
        window=1,
        judged_on=1,
        values=values,
        numbers=None,
        language=language,
    )
    return Fired(finding=finding, steps=(step,), lasting=True)


def _verdict(fired: tuple[Fired, ...], language: Language) -> str:
    worst = worst_first([one.finding for one in fired])
    if not worst:
        return tell("healthy", language)
    phrase = "sick" if worst[0].severity is Severity.CRITICAL else "unhealthy"
    return say(phrase, language, rules=say("and", language).join(finding.rule for finding in worst))
