"""The table of health rules: what is unhealthy, for how long, in which stage, why, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gad_ray.health import advice as change
from gad_ray.health.advice import Advice
from gad_ray.health.conditions import (
    Above,
    AllOf,
    AnyOf,
    Below,
    Condition,
    GapAbove,
    Near,
    RatioAbove,
    VariationAbove,
)
from gad_ray.health.signals import Signal

_BOTH = ("warmup", "adversarial")


class Severity(StrEnum):
    """How bad it is when a rule holds."""

    WARNING = "warning"
    """The run is worth less than it could be."""
    CRITICAL = "critical"
    """What the run trains on from here on is worth nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        name: Its name in kebab-case.
        stages: The stages it holds in.
        window: Steps over which the condition's means are taken.
        warmup_grace: Steps at the beginning of the warm-up that are not judged: a new value head has not
            learned to tell anything apart yet.
        condition: What is unhealthy.
        severity: How bad it is.
        meaning: What it means, in a sentence or two, with what to look at where no setting mends it.
        advice: Changes of settings that mend it, most promising first; each is worth trying on its own.
    """

    name: str
    stages: tuple[str, ...] = _BOTH
    window: int = 5
    warmup_grace: int = 0
    condition: Condition
    severity: Severity = Severity.WARNING
    meaning: str
    advice: tuple[Advice, ...] = ()


_SATURATED = Above(Signal.SIGMOID_MEAN, 0.98)
_FAR_APART = Above(Signal.SCORE_DIFF, 5.0)

RULES: tuple[Rule, ...] = (
    Rule(
        name="critic-overconfident",
        condition=AnyOf(
            (
                AllOf((Above(Signal.D_ACC, 0.90), AnyOf((_FAR_APART, _SATURATED)))),
                Above(Signal.D_ACC, 0.95),
            )
        ),
        meaning=(
            "The critic tells teacher and student apart without effort, so that its score says little about "
            "which response is better. Look at the data too: a mark that only one side carries is enough."
        ),
        advice=(
            change.RAISE_TEMPERATURE,
            change.SMOOTHER_TEMPERATURE,
            change.LOWER_REG_THRESHOLD,
            change.RAISE_REG_WEIGHT,
            change.BATCH_NORM_ON,
        ),
    ),
    Rule(
        name="critic-blind",
        stages=("adversarial",),
        condition=Below(Signal.D_ACC, 0.60),
        meaning=(
            "The critic hardly tells teacher from student, so that its score is mostly noise as a reward. Late "
            "in the game this is success if the held-out measures rose, and collapse if they did not."
        ),
        advice=(change.LOWER_TEMPERATURE, change.SHARPER_TEMPERATURE, change.BATCH_NORM_OFF),
    ),
    Rule(
        name="scores-too-far-apart",
        condition=_FAR_APART,
        meaning="Teacher and student are scored so far apart that the ranking loss has little left to teach.",
        advice=(
            change.RAISE_TEMPERATURE,
            change.SMOOTHER_TEMPERATURE,
            change.LOWER_REG_THRESHOLD,
            change.RAISE_REG_WEIGHT,
            change.BATCH_NORM_ON,
        ),
    ),
    Rule(
        name="scores-indistinct",
        # In the game a shrinking difference is what the policy works for.
        stages=("warmup",),
        warmup_grace=20,
        condition=Below(Signal.SCORE_DIFF, 0.5),
        meaning="Teacher and student are scored nearly alike: the critic has not learned to rank yet.",
        advice=(change.RAISE_CRITIC_LR, change.BATCH_NORM_OFF),
    ),
    Rule(
        name="loss-saturated",
        condition=_SATURATED,
        meaning="The sigmoid of the ranking loss sits at its end, where the loss has next to no gradient.",
        advice=(change.RAISE_TEMPERATURE, change.SMOOTHER_TEMPERATURE),
    ),
    Rule(
        name="score-collapse",
        window=10,
        warmup_grace=20,
        condition=AnyOf(
            (
                Below(Signal.SCORE_STD, 0.1),
                AllOf((Below(Signal.SCORE_MEAN_SIZE, 0.1), Near(Signal.D_ACC, 0.5, 0.05))),
            )
        ),
        severity=Severity.CRITICAL,
        meaning="The critic gives nearly the same score to everything. Go back to an earlier checkpoint.",
        advice=(change.LOWER_CRITIC_LR,),
    ),
    Rule(
        name="extreme-scores",
        condition=Above(Signal.SCORE_SIZE_MAX, 10.0),
        meaning="Single scores are so large that they outweigh all others in the advantages.",
        advice=(change.LOWER_REG_THRESHOLD, change.RAISE_REG_WEIGHT),
    ),
    Rule(
        name="gradient-explosion",
        window=3,
        condition=Above(Signal.CRITIC_GRAD_NORM, 10.0),
        severity=Severity.CRITICAL,
        meaning="The critic's gradient is far too large. Look for outliers among the rows of these steps.",
        advice=(change.LOWER_CRITIC_LR, change.CLIP_CRITIC_GRADIENT),
    ),
    Rule(
        name="gradient-vanished",
        condition=Below(Signal.CRITIC_GRAD_NORM, 0.1),
        meaning="The critic's gradient is so small that it stands still.",
        # A saturated loss asks for a higher temperature; where nothing is saturated the scores are small
        # against it, and the learning rate is the setting left.
        advice=(change.RAISE_TEMPERATURE, change.SMOOTHER_TEMPERATURE, change.RAISE_CRITIC_LR),
    ),
    Rule(
        name="discriminator-reward-out-of-range",
        condition=AnyOf((Above(Signal.DISCRIMINATOR_REWARD, 5.0), Below(Signal.DISCRIMINATOR_REWARD, -10.0))),
        meaning="The critic's scores of the student have drifted away from zero.",
        advice=(change.LOWER_REG_THRESHOLD, change.RAISE_REG_WEIGHT),
    ),
    Rule(
        name="length-shortcut",
        window=10,
        condition=AnyOf(
            (
                Above(Signal.SCORE_LENGTH_CORR, 0.5),
                RatioAbove(Signal.RESPONSE_LENGTH, Signal.TEACHER_LENGTH, 1.5),
            )
        ),
        meaning=(
            "Length decides the score, or the student writes far more than the teacher: the first shortcut that "
            "a critic finds. Look at how many responses are cut at the token limit."
        ),
    ),
    Rule(
        name="train-eval-gap",
        condition=GapAbove(Signal.D_ACC, Signal.EVAL_D_ACC, 0.15),
        meaning=(
            "The critic ranks this policy's fresh samples much better than the fixed evaluation set: it "
            "overfits them."
        ),
        advice=(change.FEWER_CRITIC_UPDATES, change.LOWER_CRITIC_LR),
    ),
    Rule(
        name="ranking-loss-oscillates",
        window=20,
        condition=VariationAbove(Signal.RANKING_LOSS, 0.5),
        meaning="The ranking loss swings by more than half of its mean: the critic's steps are too long.",
        advice=(change.LOWER_CRITIC_LR,),
    ),
    Rule(
        name="rollout-trainer-mismatch",
        stages=("adversarial",),
        condition=Above(Signal.MISMATCH, 0.05),
        severity=Severity.CRITICAL,
        meaning=(
            "The rollout engine and the trainer disagree on the probability of the same tokens: precision, chat "
            "template or stale weights. The policy is trained on samples that are not its own."
        ),
        advice=(change.ROLLOUT_IN_FLOAT32, change.NO_STALENESS),
    ),
)
"""All rules that can be judged from the metrics of a window of steps."""
