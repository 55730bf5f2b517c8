"""The quantities that health rules look at, read or derived from a step's metrics and the run's facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gad_ray.health.facts import NO_FACTS, RunFacts

Metrics = Mapping[str, float]


class Signal(StrEnum):
    """A quantity that rules look at. Its value is the name under which a finding reports it."""

    D_ACC = "d_acc"
    SCORE_DIFF = "score_diff"
    SIGMOID_MEAN = "mean sigmoid(d/τ)"
    SCORE_STD = "score std"
    SCORE_MEAN_SIZE = "size of the mean score"
    SCORE_SIZE_MAX = "largest |score|"
    RANKING_LOSS = "ranking_loss"
    CRITIC_GRAD_NORM = "critic grad_norm"
    DISCRIMINATOR_REWARD = "discriminator reward"
    REWARD = "reward"
    LEAD = "score over the teacher's"
    ROUNDED_SCORES = "share of scores rounded to bfloat16"
    SKIPPED_STEPS = "optimiser steps skipped"
    SCORE_LENGTH_CORR = "corr(score, length)"
    RESPONSE_LENGTH = "response length"
    TEACHER_LENGTH = "teacher's length"
    MISMATCH = "|log π_trainer − log π_rollout|"
    PG_LOSS_SIZE = "|pg_loss|"
    ADV_STD = "advantage std"
    KL = "KL to the reference"
    KL_SHARE = "KL term's share of the gradient"
    ZERO_SPREAD = "share of groups without spread"
    POLICY_LR = "policy lr"
    WARM_START_LR = "warm start's lr"
    RANKED = "rank advantages"
    STEP_SECONDS = "seconds without a step"
    STEP_TIME_RATIO = "time of the step / median"
    EVAL_D_ACC = "eval/d_acc"
    EVAL_D_ACC_HIGH = "eval/d_acc_high"
    EVAL_SCORE_DIFF_SIZE = "|eval/score_diff|"
    EVAL_REWARD = "eval/reward over the teacher's"
    TEACHER_NLL = "eval/teacher_nll"
    SAMPLING_DIFFERENCES = "sampling settings that differ"
    SAME_CRITIC = "same critic in evaluation"
    IDENTICAL_DIFF = "score difference of identical text"
    NUM_NONFINITE = "metrics that are not a number"
    NUM_LOST = "metrics that are not told any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a signal comes from.

    Attributes:
        read: A step's metrics and the run's facts → the value, or None if they do not tell it.
        sparse: The metric comes with few steps only: its latest value stands for the whole window.
    """

    read: Callable[[Metrics, RunFacts], float | None]
    sparse: bool = False


Read = Callable[[Metrics, RunFacts], float | None]


def _first(*names: str) -> Read:
    """The first of the metrics that the step has."""
    return lambda metrics, _facts: next((metrics[name] for name in names if name in metrics), None)


def _size(*names: str) -> Read:
    first = _first(*names)

    def read(metrics: Metrics, facts: RunFacts) -> float | None:
        value = first(metrics, facts)
        return None if value is None else abs(value)

    return read


def _largest(*names: str) -> Read:
    """The largest of those of the metrics that the step has."""
    return lambda metrics, _facts: max((metrics[name] for name in names if name in metrics), default=None)


def _score_diff(metrics: Metrics, _facts: RunFacts) -> float | None:
    """The mean difference where it is logged, else the difference of the means, which is the same."""
    if "critic/score_diff" in metrics:
        return metrics["critic/score_diff"]
    sides = _both_means(metrics)
    return sides[0] - sides[1] if sides else None


def _lead(metrics: Metrics, facts: RunFacts) -> float | None:
    """By how much the student is scored above the teacher: a drift of all scores, which means nothing, is not in it."""
    difference = _score_diff(metrics, facts)
    return None if difference is None else -difference


def _eval_reward(metrics: Metrics, _facts: RunFacts) -> float | None:
    """The same on held-out prompts; the score alone where the teacher's is not logged."""
    reward = metrics.get("eval/reward")
    return None if reward is None else reward - metrics.get("eval/teacher_score_mean", 0.0)


def _both_means(metrics: Metrics) -> tuple[float, float] | None:
    teacher, student = metrics.get("critic/teacher_score_mean"), metrics.get("critic/student_score_mean")
    return (teacher, student) if teacher is not None and student is not None else None


def _sigmoid_mean(metrics: Metrics, facts: RunFacts) -> float | None:
    """The mean of σ(d/τ) where it is logged, else σ of the mean d."""
    if "critic/sigmoid_mean" in metrics:
        return metrics["critic/sigmoid_mean"]
    difference = _score_diff(metrics, facts)
    temperature = metrics.get("critic/temperature", facts.loss_temperature)
    if difference is None or not temperature:
        return None
    # By tanh, which does not overflow however far the scores are apart.
    return 0.5 * (1.0 + math.tanh(0.5 * difference / temperature))


def _score_mean_size(metrics: Metrics, _facts: RunFacts) -> float | None:
    """|mean| of the teacher's and the student's scores together."""
    sides = _both_means(metrics)
    return abs(sum(sides) / 2) if sides else None


def _score_size_max(metrics: Metrics, facts: RunFacts) -> float | None:
    """The largest |score| that the metrics tell of: no score need be larger, but at least one is as large."""
    names = (f"critic/{s}_score_{end}" for s in ("teacher", "student") for end in ("min", "max", "mean"))
    sizes = [abs(metrics[name]) for name in names if name in metrics]
    difference = _score_diff(metrics, facts)
    if difference is not None:
        # Of two numbers that far apart, one is at least half as large.
        sizes.append(abs(difference) / 2)
    return max(sizes, default=None)


def _kl_share(metrics: Metrics, facts: RunFacts) -> float | None:
    """The KL term's share of the gradient where it is logged, else of the sizes of KL term and policy gradient."""
    if "actor/kl_share" in metrics:
        return metrics["actor/kl_share"]
    coefficient = metrics.get("actor/kl_coef", facts.kl_coefficient)
    if coefficient is None or "actor/kl_loss" not in metrics or "actor/pg_loss" not in metrics:
        return None
    # Of fresh samples the policy's loss is near 0 whatever drives it: the advantages' size is what drives it.
    term = abs(coefficient * metrics["actor/kl_loss"])
    rest = max(abs(metrics["actor/pg_loss"]), metrics.get("actor/adv_std", 0.0), _quarter_range(metrics))
    return term / (term + rest) if term + rest > 0 else None


def _quarter_range(metrics: Metrics) -> float:
    """A quarter of the range of advantages, which stands for their standard deviation where that is not told."""
    if "actor/adv_min" not in metrics or "actor/adv_max" not in metrics:
        return 0.0
    return (metrics["actor/adv_max"] - metrics["actor/adv_min"]) / 4.0


def _num_nonfinite(metrics: Metrics, _facts: RunFacts) -> float | None:
    return float(len(nonfinite_names(metrics)))


def nonfinite_names(metrics: Metrics) -> tuple[str, ...]:
    """Names of a step's metrics that are NaN or infinite, in order."""
    return tuple(sorted(name for name, value in metrics.items() if not math.isfinite(value)))


def _policy_lr(metrics: Metrics, facts: RunFacts) -> float | None:
    """The configured rate: the one of a step may be that of a schedule's beginning or end."""
    return facts.policy_lr if facts.policy_lr is not None else metrics.get("actor/lr")


def _ranked(_metrics: Metrics, facts: RunFacts) -> float | None:
    return None if facts.advantage is None else float(facts.advantage == "rank")


def _skipped_steps(metrics: Metrics, _facts: RunFacts) -> float | None:
    """Of both models together."""
    told = [metrics[name] for name in ("critic/skipped_steps", "actor/skipped_steps") if name in metrics]
    return sum(told) if told else None


def _kl(metrics: Metrics, _facts: RunFacts) -> float | None:
    """Without a coefficient there is no reference: the 0 that is logged then was not measured."""
    return None if metrics.get("actor/kl_coef") == 0.0 else metrics.get("actor/kl_loss")


def _same_critic(metrics: Metrics, facts: RunFacts) -> float | None:
    """What the run found out of its own evaluation, else what is known of a test made apart from it."""
    if "critic/same_as_evaluated" in metrics:
        return metrics["critic/same_as_evaluated"]
    return None if facts.same_critic is None else float(facts.same_critic)


def _identical_difference(metrics: Metrics, facts: RunFacts) -> float | None:
    return metrics.get("eval/identical_text_diff", facts.identical_text_difference)


def _num_sampling_differences(_metrics: Metrics, facts: RunFacts) -> float | None:
    known = facts.training_sampling is not None and facts.evaluation_sampling is not None
    return float(len(facts.sampling_differences)) if known else None


def step_seconds(metrics: Metrics, _facts: RunFacts = NO_FACTS) -> float | None:
    """Wall time of a step, less that of an evaluation within it."""
    seconds = metrics.get("timing_s/step")
    return None if seconds is None else seconds - metrics.get("timing_s/eval", 0.0)


SOURCES: Mapping[Signal, Source] = {
    Signal.D_ACC: Source(read=_first("critic/d_acc")),
    Signal.SCORE_DIFF: Source(read=_score_diff),
    Signal.SIGMOID_MEAN: Source(read=_sigmoid_mean),
    Signal.SCORE_STD: Source(read=_largest("critic/teacher_score_std", "critic/student_score_std")),
    Signal.SCORE_MEAN_SIZE: Source(read=_score_mean_size),
    Signal.SCORE_SIZE_MAX: Source(read=_score_size_max),
    Signal.RANKING_LOSS: Source(read=_first("critic/ranking_loss")),
    # Clipping hides an explosion: the norm before it counts.
    Signal.CRITIC_GRAD_NORM: Source(read=_first("critic/grad_norm_before_clip", "critic/grad_norm")),
    Signal.DISCRIMINATOR_REWARD: Source(read=_first("reward/discriminator_mean")),
    Signal.REWARD: Source(read=_first("critic/rewards/mean", "reward/discriminator_mean")),
    Signal.ROUNDED_SCORES: Source(read=_first("critic/rounded_scores")),
    Signal.SKIPPED_STEPS: Source(read=_skipped_steps),
    Signal.LEAD: Source(read=_lead),
    # With its sign: of a few samples a step the size alone is far from 0 by chance.
    Signal.SCORE_LENGTH_CORR: Source(read=_first("critic/score_length_corr")),
    Signal.RESPONSE_LENGTH: Source(read=_first("response_length/mean")),
    Signal.TEACHER_LENGTH: Source(read=_first("response_length/teacher_mean")),
    # The mean difference never exceeds the mean size of the differences: it is a cautious stand-in.
    Signal.MISMATCH: Source(read=_first("rollout/mismatch_abs", "rollout/mismatch_kl")),
    Signal.PG_LOSS_SIZE: Source(read=_size("actor/pg_loss")),
    Signal.ADV_STD: Source(read=_first("actor/adv_std")),
    Signal.KL: Source(read=_kl),
    Signal.KL_SHARE: Source(read=_kl_share),
    Signal.ZERO_SPREAD: Source(read=_first("actor/zero_spread_groups")),
    Signal.POLICY_LR: Source(read=_policy_lr),
    Signal.WARM_START_LR: Source(read=lambda _, facts: facts.warm_start_lr),
    Signal.RANKED: Source(read=_ranked),
    Signal.STEP_SECONDS: Source(read=step_seconds),
    Signal.STEP_TIME_RATIO: Source(read=_first("perf/step_time_ratio")),
    Signal.EVAL_D_ACC: Source(read=_first("eval/d_acc"), sparse=True),
    Signal.EVAL_D_ACC_HIGH: Source(read=_first("eval/d_acc_high"), sparse=True),
    Signal.EVAL_SCORE_DIFF_SIZE: Source(read=_size("eval/score_diff"), sparse=True),
    Signal.EVAL_REWARD: Source(read=_eval_reward, sparse=True),
    Signal.TEACHER_NLL: Source(read=_first("eval/teacher_nll"), sparse=True),
    Signal.SAMPLING_DIFFERENCES: Source(read=_num_sampling_differences),
    Signal.SAME_CRITIC: Source(read=_same_critic),
    Signal.IDENTICAL_DIFF: Source(read=_identical_difference),
    Signal.NUM_NONFINITE: Source(read=_num_nonfinite),
    # Of several steps: the monitor tells it.
    Signal.NUM_LOST: Source(read=lambda _metrics, _facts: None),
}


def read_signals(metrics: Metrics, facts: RunFacts = NO_FACTS) -> dict[Signal, float]:
    """The signals that a step and the facts tell, without those that are not finite."""
    values = {signal: source.read(metrics, facts) for signal, source in SOURCES.items()}
    return {signal: value for signal, value in values.items() if value is not None and math.isfinite(value)}
