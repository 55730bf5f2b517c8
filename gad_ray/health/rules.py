"""The table of health rules: what is unhealthy, for how long, in which stage, and what mends it.

What a rule means is said in :mod:`gad_ray.health.texts`, in every language.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gad_ray.findings import Severity
from gad_ray.health import advice as change
from gad_ray.health import bands
from gad_ray.health.advice import Advice
from gad_ray.health.conditions import (
    Above,
    AllOf,
    AnyOf,
    Below,
    Condition,
    DriftBelow,
    Falls,
    GapAbove,
    Known,
    Near,
    Not,
    RatioAbove,
    RatioBelow,
    Rises,
    StaysAbove,
    VariationAbove,
    VariationBelow,
)
from gad_ray.health.signals import Signal

_BOTH = ("warmup", "adversarial")

UNKNOWN_STAGE = "unknown"
"""Stage of a foreign log that does not tell it: the rules of all stages are tried."""

UNKNOWN_EPOCH = 50
"""Steps that stand for an epoch where it is not known how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        name: Its name in kebab-case, under which its texts are found.
        stages: The stages it holds in.
        window: Steps over which the condition's means are taken, or an epoch of them.
        warmup_grace: Steps at the beginning of the warm-up that are not judged: a new value head has not
            learned to tell anything apart yet.
        condition: What is unhealthy.
        severity: How bad it is.
        shortest: Fewest steps on which it is judged where a run ended before its window was full.
        yields_to: Rules that name the cause where this one only sees a symptom, and whose answer is another:
            while one of them holds, this rule does not.
        remark: A condition under which its second text is said too.
        advice: Changes of settings that mend it, most promising first; each is worth trying on its own.
    """

    name: str
    stages: tuple[str, ...] = _BOTH
    window: int | Literal["epoch"] = 5
    warmup_grace: int = 0
    condition: Condition
    severity: Severity = Severity.WARNING
    shortest: int = 1
    yields_to: tuple[str, ...] = ()
    remark: Condition | None = None
    advice: tuple[Advice, ...] = ()

    def steps(self, epoch: int | None) -> int:
        """The window in steps, given those of an epoch."""
        return (epoch or UNKNOWN_EPOCH) if self.window == "epoch" else self.window


_SATURATED = Above(Signal.SIGMOID_MEAN, bands.SATURATED)
_FAR_APART = Above(Signal.SCORE_DIFF, bands.SCORE_DIFF[1])
_EXTREME = Above(Signal.SCORE_SIZE_MAX, 10.0)
_EVALUATION_GAP = AllOf(
    (
        GapAbove(Signal.D_ACC, Signal.EVAL_D_ACC, 0.15),
        # What lies within the interval of a small set is chance.
        AnyOf(
            (
                Not(Known(Signal.EVAL_D_ACC_HIGH)),
                GapAbove(Signal.D_ACC, Signal.EVAL_D_ACC_HIGH, 0.0),
            )
        ),
    )
)
_MOST_GROUPS_WITHOUT_SPREAD = Above(Signal.ZERO_SPREAD, 0.5)
_REWARD_RISES = AllOf(
    (
        Rises(Signal.REWARD, 0.5),
        # Only differences within a prompt mean anything: where both sides rise it is the critic that moved.
        AnyOf((Not(Known(Signal.LEAD)), Rises(Signal.LEAD, 0.5))),
    )
)
_FARTHER_FROM_THE_TEACHER = AnyOf((Falls(Signal.EVAL_REWARD, 0.5), Rises(Signal.TEACHER_NLL, 1.0)))
_NEARER_TO_THE_TEACHER = Falls(Signal.TEACHER_NLL, 0.1)
_COLLAPSED_LENGTH = AnyOf(
    (Below(Signal.RESPONSE_LENGTH, 2.0), RatioBelow(Signal.RESPONSE_LENGTH, Signal.TEACHER_LENGTH, 0.2))
)
_STANDS_STILL = AllOf(
    (Below(Signal.PG_LOSS_SIZE, 1e-3), Below(Signal.ADV_STD, 0.05), DriftBelow(Signal.KL, 0.25))
)

RULES: tuple[Rule, ...] = (
    Rule(
        name="not-a-number",
        window=1,
        condition=Above(Signal.NUM_NONFINITE, 0.0),
        severity=Severity.CRITICAL,
        advice=(change.LOWER_CRITIC_LR, change.LOWER_POLICY_LR),
    ),
    Rule(
        name="metrics-lost",
        window=1,
        condition=Above(Signal.NUM_LOST, 0.0),
    ),
    Rule(
        name="critic-overconfident",
        condition=AnyOf(
            (
                AllOf((Above(Signal.D_ACC, 0.90), AnyOf((_FAR_APART, _SATURATED)))),
                Above(Signal.D_ACC, bands.D_ACC_LIMIT),
            )
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
        # Late in the game it is success if the policy came nearer to the teacher by a measure that is not the critic's.
        condition=AllOf((Below(Signal.D_ACC, 0.60), Not(_NEARER_TO_THE_TEACHER))),
        advice=(change.LOWER_TEMPERATURE, change.SHARPER_TEMPERATURE, change.BATCH_NORM_OFF),
    ),
    Rule(
        name="scores-too-far-apart",
        condition=_FAR_APART,
        yields_to=("evaluation-near-collapse", "reward-hacking", "length-collapse"),
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
        yields_to=("score-collapse",),
        advice=(change.RAISE_CRITIC_LR, change.BATCH_NORM_OFF),
    ),
    Rule(
        name="scores-stand-still",
        window=50,
        # Fresh samples alone move the difference by more than this from step to step.
        condition=VariationBelow(Signal.SCORE_DIFF, 0.01),
        shortest=50,
        advice=(change.RAISE_CRITIC_LR,),
    ),
    Rule(
        name="loss-saturated",
        condition=_SATURATED,
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
        advice=(change.LOWER_CRITIC_LR,),
    ),
    Rule(
        name="extreme-scores",
        condition=_EXTREME,
        advice=(change.LOWER_REG_THRESHOLD, change.RAISE_REG_WEIGHT),
    ),
    Rule(
        name="scores-rounded",
        condition=Above(Signal.ROUNDED_SCORES, 0.5),
    ),
    Rule(
        name="gradient-explosion",
        window=3,
        condition=Above(Signal.CRITIC_GRAD_NORM, 10.0),
        severity=Severity.CRITICAL,
        advice=(change.BLUNTER_TEMPERATURE, change.LOWER_CRITIC_LR, change.CLIP_CRITIC_GRADIENT),
    ),
    Rule(
        name="gradient-vanished",
        condition=Below(Signal.CRITIC_GRAD_NORM, 0.1),
        # A saturated loss asks for a higher temperature; where nothing is saturated the scores are small
        # against it, and the learning rate is the setting left.
        advice=(change.RAISE_TEMPERATURE, change.SMOOTHER_TEMPERATURE, change.RAISE_CRITIC_LR),
    ),
    Rule(
        name="steps-skipped",
        condition=Above(Signal.SKIPPED_STEPS, 0.0),
        advice=(change.LOWER_CRITIC_LR, change.LOWER_POLICY_LR),
    ),
    Rule(
        name="discriminator-reward-out-of-range",
        condition=AnyOf((Above(Signal.DISCRIMINATOR_REWARD, 5.0), Below(Signal.DISCRIMINATOR_REWARD, -10.0))),
        advice=(change.LOWER_REG_THRESHOLD, change.RAISE_REG_WEIGHT),
    ),
    Rule(
        name="policy-stands-still",
        stages=("adversarial",),
        window="epoch",
        shortest=3,
        condition=_STANDS_STILL,
        advice=(change.RAISE_POLICY_LR, change.LOWER_KL),
    ),
    Rule(
        name="policy-runs-away",
        stages=("adversarial",),
        window=3,
        # The estimate of a single step may be large by one token.
        condition=StaysAbove(Signal.KL, 1.0),
        severity=Severity.CRITICAL,
        advice=(change.LOWER_POLICY_LR, change.RAISE_KL),
    ),
    Rule(
        name="advantages-squeezed",
        stages=("adversarial",),
        # Where most groups have no spread, that is the cause.
        condition=AllOf((Below(Signal.ADV_STD, 0.05), Not(_MOST_GROUPS_WITHOUT_SPREAD))),
        remark=Above(Signal.RANKED, 0.5),
        advice=(change.GRPO, change.LOWER_STD_FLOOR),
    ),
    Rule(
        name="lr-too-small",
        stages=("adversarial",),
        window=20,
        shortest=3,
        # A rate far below the warm start's is no fault while the policy moves.
        condition=AllOf(
            (
                RatioBelow(Signal.POLICY_LR, Signal.WARM_START_LR, 0.08),
                AnyOf((_STANDS_STILL, Below(Signal.KL, 0.005))),
            )
        ),
        advice=(change.RAISE_POLICY_LR, change.SOME_KL),
    ),
    Rule(
        name="kl-drowns-the-loss",
        stages=("adversarial",),
        window=10,
        condition=Above(Signal.KL_SHARE, 0.5),
        advice=(change.LOWER_KL,),
    ),
    Rule(
        name="no-spread-in-groups",
        stages=("adversarial",),
        window=10,
        condition=_MOST_GROUPS_WITHOUT_SPREAD,
        advice=(change.HOTTER_SAMPLING, change.SPREAD_FIRST, change.DROP_ZERO_SPREAD),
    ),
    Rule(
        name="length-shortcut",
        window=10,
        condition=AnyOf(
            (
                Above(Signal.SCORE_LENGTH_CORR, 0.5),
                Below(Signal.SCORE_LENGTH_CORR, -0.5),
                # Before the policy follows the critic, its length is its own.
                AllOf(
                    (
                        Known(Signal.PG_LOSS_SIZE),
                        RatioAbove(Signal.RESPONSE_LENGTH, Signal.TEACHER_LENGTH, 1.5),
                    )
                ),
            )
        ),
        advice=(change.OVERLONG_PENALTY, change.EXCLUDE_CUT),
    ),
    Rule(
        name="length-collapse",
        condition=_COLLAPSED_LENGTH,
        severity=Severity.CRITICAL,
        advice=(change.LOWER_POLICY_LR, change.RAISE_KL, change.TOO_SHORT_PENALTY),
    ),
    Rule(
        name="reward-hacking",
        stages=("adversarial",),
        window=20,
        condition=AnyOf(
            (
                AllOf((_REWARD_RISES, _FARTHER_FROM_THE_TEACHER)),
                # Answers of next to nothing, scored far out: no measure of quality is needed to see it.
                AllOf((_COLLAPSED_LENGTH, _EXTREME)),
            )
        ),
        severity=Severity.CRITICAL,
        advice=(change.MORE_CRITIC_UPDATES, change.REPLAY, change.LOWER_POLICY_LR),
    ),
    Rule(
        name="train-eval-gap",
        condition=_EVALUATION_GAP,
        advice=(change.FEWER_CRITIC_UPDATES, change.REPLAY, change.LOWER_CRITIC_LR),
    ),
    Rule(
        name="evaluation-near-collapse",
        # A critic that is blind in training too has nothing to lose in the evaluation.
        condition=AllOf(
            (
                Below(Signal.EVAL_D_ACC, 0.60),
                Below(Signal.EVAL_SCORE_DIFF_SIZE, 0.5),
                _EVALUATION_GAP,
            )
        ),
        advice=(change.FEWER_CRITIC_UPDATES, change.REPLAY, change.LOWER_CRITIC_LR),
    ),
    Rule(
        name="sampling-differs",
        window=1,
        condition=Above(Signal.SAMPLING_DIFFERENCES, 0.5),
        advice=change.SAMPLE_AS_EVALUATED,
    ),
    Rule(
        name="fingerprint-unknown",
        # Whether it is the same critic is asked where the figures disagree.
        condition=AllOf((_EVALUATION_GAP, Not(Known(Signal.SAME_CRITIC)))),
        advice=(change.KEEP_RECORDS,),
    ),
    Rule(
        name="fingerprint-differs",
        window=1,
        condition=Below(Signal.SAME_CRITIC, 0.5),
    ),
    Rule(
        name="identical-text-differs",
        window=1,
        condition=Above(Signal.IDENTICAL_DIFF, 1e-5),
        severity=Severity.CRITICAL,
    ),
    Rule(
        name="ranking-loss-oscillates",
        window=20,
        condition=VariationAbove(Signal.RANKING_LOSS, 0.5),
        shortest=10,
        advice=(change.LOWER_CRITIC_LR,),
    ),
    Rule(
        name="rollout-trainer-mismatch",
        stages=("adversarial",),
        condition=Above(Signal.MISMATCH, 0.05),
        severity=Severity.CRITICAL,
        advice=(change.ROLLOUT_IN_FLOAT32, change.NO_STALENESS, change.WEIGH_IMPORTANCE),
    ),
    Rule(
        name="stalled",
        window=1,
        condition=AllOf((Above(Signal.STEP_TIME_RATIO, 5.0), Above(Signal.STEP_SECONDS, 60.0))),
    ),
)
"""All rules, in the order in which they are reported."""
