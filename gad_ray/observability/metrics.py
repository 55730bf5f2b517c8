"""Every metric that is logged: its name, unit, kind and meaning, and its name in Prometheus.

A name means one thing in all stages. Values are those of one step, never running means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

STAGES = ("warmup", "adversarial", "seqkd", "soda")
"""The stages of a run, and the methods of an offline fit; the only label that metrics carry."""


class Unit(StrEnum):
    """Unit of a metric's value; also the suffix of its Prometheus name where one is customary."""

    NONE = ""
    RATIO = "ratio"
    """A share between 0 and 1."""
    SECONDS = "seconds"
    BYTES = "bytes"
    TOKENS = "tokens"
    TOKENS_PER_SECOND = "tokens_per_second"
    NATS = "nats"
    EPOCHS = "epochs"
    UPDATES = "updates"


class Kind(StrEnum):
    """How values of different steps go together."""

    GAUGE = "gauge"
    """The value as it stood in the step."""
    COUNTER = "counter"
    """The number of events in the step; Prometheus adds them up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric."""

    name: str
    description: str
    unit: Unit = Unit.NONE
    kind: Kind = Kind.GAUGE


def _gauge(name: str, description: str, unit: Unit = Unit.NONE) -> MetricSpec:
    return MetricSpec(name=name, description=description, unit=unit)


def _counter(name: str, description: str) -> MetricSpec:
    return MetricSpec(name=name, description=description, kind=Kind.COUNTER)


def _spread(prefix: str, what: str) -> tuple[MetricSpec, ...]:
    words = {"mean": "Mean", "std": "Standard deviation", "min": "Smallest", "max": "Largest"}
    return tuple(_gauge(prefix + key, f"{word} of {what}") for key, word in words.items())


_CRITIC = (
    _gauge(
        "critic/d_acc",
        "Share of fresh pairs in which the teacher scores higher, before the update",
        Unit.RATIO,
    ),
    _gauge("critic/d_loss", "Discriminator loss: ranking loss plus score regularisation"),
    _gauge(
        "critic/ranking_loss",
        "Mean softplus(-(d - margin) / temperature), or the cross-entropy of both sides",
    ),
    _gauge("critic/score_reg", "Score regularisation, weighted, as it enters the loss"),
    _gauge(
        "critic/score_diff", "Mean of teacher's minus student's raw score on fresh pairs, before the update"
    ),
    _gauge("critic/sigmoid_mean", "Mean sigmoid(d / temperature); near 1 the loss is saturated", Unit.RATIO),
    *_spread("critic/teacher_score_", "the teacher's raw scores, before the update"),
    *_spread("critic/student_score_", "the student's raw scores, before the update"),
    _gauge("critic/score_range", "Largest minus smallest of the teacher's raw scores, before the update"),
    _gauge("critic/score_range_both", "Largest minus smallest raw score of both sides, before the update"),
    _gauge(
        "critic/score_separation",
        "Difference of the sides' mean raw scores over the root of the mean of their variances",
    ),
    _gauge(
        "critic/mix_raw_score_diff", "Pooling mix: mean of teacher's minus student's score by the last token"
    ),
    _gauge(
        "critic/mix_norm_score_diff",
        "Pooling mix: the same of the last token's score divided by the length in scored tokens",
    ),
    _gauge(
        "critic/rounded_scores",
        "Share of the step's scores that bfloat16 holds exactly; near 0 unless something rounds them",
        Unit.RATIO,
    ),
    _gauge("critic/score_length_corr", "Correlation of the student's score and response length"),
    _gauge("critic/temperature", "Temperature of the ranking loss"),
    _gauge("critic/batch_mean", "Mean that batch normalisation removed from the scores"),
    _gauge("critic/batch_std", "Standard deviation that batch normalisation divided the scores by"),
    *(
        _gauge(f"critic/trained_{name}", f"{what}, over fresh and replayed responses as trained with", unit)
        for name, what, unit in (
            ("d_loss", "Discriminator loss", Unit.NONE),
            ("ranking_loss", "Ranking loss", Unit.NONE),
            ("score_reg", "Score regularisation", Unit.NONE),
            ("sigmoid_mean", "Mean sigmoid(d / temperature)", Unit.RATIO),
            ("batch_mean", "Mean that batch normalisation removed", Unit.NONE),
            ("batch_std", "Standard deviation that batch normalisation divided by", Unit.NONE),
        )
    ),
    _counter(
        "critic/truncated_excluded", "Responses cut at the token limit that the critic did not learn from"
    ),
    _gauge("critic/replay_size", "Past responses in the critic's replay buffer"),
    _gauge("critic/replay_age", "Mean age, in steps, of the responses that were replayed"),
    _gauge("critic/grad_norm", "Global gradient norm of the critic after clipping"),
    _gauge("critic/grad_norm_before_clip", "Global gradient norm of the critic before clipping"),
    _gauge("critic/lr", "Learning rate of the critic's backbone"),
    _gauge(
        "critic/fingerprint",
        "First 12 hex digits, as a number, of the fingerprint of the critic that scored the step",
    ),
    _gauge("critic/version", "Optimiser steps that the critic has taken", Unit.UPDATES),
    _gauge(
        "critic/same_as_evaluated",
        "In the step after an evaluation: 1 if the critic that scores is the one that was evaluated, 0 if it is not",
    ),
    _counter(
        "critic/skipped_steps", "Optimiser steps of the critic skipped for a non-finite loss or gradient"
    ),
)

_REWARD = (
    *_spread(
        "critic/rewards/", "the reward, discriminator and format together, over samples that were not aborted"
    ),
    _gauge("reward/discriminator_mean", "Mean of the discriminator's part of the reward"),
    _gauge("reward/discriminator_std", "Standard deviation of the discriminator's part of the reward"),
    _gauge("format/reward_avg", "Mean of the format rewards' weighted sum"),
    _gauge("reward/kl_penalty_mean", "Mean KL penalty taken from the rewards before the advantages"),
    _counter("reward/failed_samples", "Responses left out of the update because a reward function failed"),
    *(
        _gauge(f"format/{name}", f"Mean of the format reward {what}, before its weight")
        for name, what in {
            "no_repetition": "against repeated n-grams",
            "pattern": "for a required pattern",
            "json": "for JSON",
            "leaked_control": "against leaked control text",
            "length_window": "against lengths outside the window",
            "language": "for the prompt's script",
            "custom": "of the user's function",
        }.items()
    ),
)

_ACTOR = (
    _gauge("actor/loss", "Loss of the policy, all terms together"),
    _gauge("actor/pg_loss", "Policy-gradient loss"),
    _gauge("actor/kl_loss", "KL divergence from the reference policy, before its coefficient", Unit.NATS),
    _gauge("actor/kl_coef", "Coefficient of the KL term"),
    _gauge(
        "actor/kl_share",
        "Share of the KL term in the sum of absolute gradients of the loss by log-probabilities",
        Unit.RATIO,
    ),
    _gauge("actor/ce_loss", "Cross-entropy of the teacher's text under the policy, per token", Unit.NATS),
    _gauge("actor/entropy", "Mean entropy of the policy per response token", Unit.NATS),
    _gauge("actor/grad_norm", "Global gradient norm of the policy after clipping"),
    _gauge("actor/grad_norm_before_clip", "Global gradient norm of the policy before clipping"),
    _gauge("actor/clipfrac", "Share of tokens or sequences whose ratio was clipped", Unit.RATIO),
    _gauge("actor/ratio_mean", "Mean probability ratio of the new to the old policy"),
    _gauge("actor/ratio_gap_max", "Largest |rho - 1| of a token, rho = new / old policy's probability"),
    _gauge("actor/ppo_kl", "Mean of old minus new log-probability of the sampled tokens", Unit.NATS),
    _gauge("actor/adv_mean", "Mean advantage"),
    _gauge("actor/adv_std", "Standard deviation of the advantages"),
    _gauge("actor/adv_min", "Smallest advantage"),
    _gauge("actor/adv_max", "Largest advantage"),
    _gauge("actor/zero_spread_groups", "Share of groups whose rewards are all equal", Unit.RATIO),
    _counter("actor/dropped_samples", "Responses left out of the update because their group had no spread"),
    _counter("actor/lone_samples", "Responses left out of the update because the rest of their group failed"),
    _counter(
        "actor/surplus_samples", "Responses left out of the update because a refill had filled the batch"
    ),
    _gauge("actor/importance_weight_mean", "Mean importance weight of the rollout's tokens, as it was used"),
    _gauge(
        "actor/importance_clipfrac",
        "Share of tokens whose importance weight was truncated or rejected",
        Unit.RATIO,
    ),
    _counter(
        "actor/importance_rejected_tokens",
        "Tokens left out because their importance weight was above the cap",
    ),
    _gauge("actor/lr", "Learning rate of the policy"),
    _gauge("actor/version", "Version of the policy's weights", Unit.UPDATES),
    _counter(
        "actor/skipped_steps", "Optimiser steps of the policy skipped for a non-finite loss or gradient"
    ),
)

_PREFERENCE = (
    _gauge("dpo/loss", "Preference loss: mean -log sigmoid of the margin, label smoothing included"),
    _gauge(
        "dpo/margin", "Mean difference of the implicit rewards of the teacher's and the student's responses"
    ),
    _gauge("dpo/accuracy", "Share of pairs in which the teacher's implicit reward is higher", Unit.RATIO),
    _gauge("dpo/chosen_reward", "Mean implicit reward, beta * log(pi / pi_ref), of the teacher's responses"),
    _gauge("dpo/rejected_reward", "The same of the student's responses"),
    _counter("dpo/pairs", "Pairs trained on"),
)

_ROLLOUT = (
    _gauge("response_length/mean", "Mean length of the policy's responses, without end of turn", Unit.TOKENS),
    _gauge("response_length/min", "Shortest of the policy's responses", Unit.TOKENS),
    _gauge("response_length/max", "Longest of the policy's responses", Unit.TOKENS),
    _gauge("response_length/clip_ratio", "Share of responses cut at the token limit", Unit.RATIO),
    _gauge(
        "response_length/teacher_mean",
        "Mean length of the teacher's responses to the same prompts, in the policy's tokens without end of turn",
        Unit.TOKENS,
    ),
    _gauge("prompt_length/mean", "Mean length of the rendered prompts", Unit.TOKENS),
    _gauge("prompt_length/max", "Longest of the rendered prompts", Unit.TOKENS),
    _gauge(
        "rollout/mismatch_kl", "KL divergence of the rollout from the trainer, by k3 per token", Unit.NATS
    ),
    _gauge(
        "rollout/mismatch_abs", "Mean size of the rollout's minus the trainer's log-probability", Unit.NATS
    ),
    _gauge(
        "rollout/staleness", "Policy updates by which the samples are older than the policy", Unit.UPDATES
    ),
    _gauge("rollout/refill_rounds", "Times that the step drew prompts in place of groups without spread"),
    _counter("rollout/refilled_groups", "Prompts drawn in place of groups without spread"),
    _counter("rollout/unfilled_groups", "Places in the policy's batch that stayed empty after the refills"),
    _counter("rollout/responses", "Responses that were generated"),
    _counter("rollout/tokens", "Response tokens that were generated"),
    _counter("rollout/failed", "Responses left out because their generation failed even when retried"),
    _counter("rollout/retried", "Generations that had to be repeated"),
    _gauge(
        "sync/probe_gap",
        "Gap of learner's and engine's log-probabilities of the probe after a sync",
        Unit.NATS,
    ),
)

_TIMING = tuple(
    _gauge(f"timing_s/{part}", f"Wall time of {what}", Unit.SECONDS)
    for part, what in {
        "data": "reading the step's prompts",
        "rollout": "generation",
        "score": "scoring by the critic",
        "update_critic": "the critic's update",
        "reward": "waiting for the rewards, user's functions among them",
        "logprobs": "recomputing log-probabilities before the policy's update",
        "update_actor": "the policy's update",
        "sync": "bringing the new weights to the rollout engines",
        "records": "writing score records",
        "eval": "scoring the fixed evaluation set",
        "publish": "handing the new critic to the endpoint, without waiting for anybody",
        "checkpoint": "saving a checkpoint",
        "step": "the whole step",
    }.items()
)

_PERF = (
    _gauge(
        "perf/rollout_tokens_per_s", "Response tokens generated per second of rollout", Unit.TOKENS_PER_SECOND
    ),
    _gauge("perf/train_tokens_per_s", "Tokens trained on per second of both updates", Unit.TOKENS_PER_SECOND),
    _gauge(
        "perf/step_time_ratio",
        "Wall time of the step, evaluation left out, over the median of its stage so far",
    ),
    _gauge("perf/memory_bytes", "Memory held by the run's processes together", Unit.BYTES),
    _gauge(
        "perf/memory_peak_bytes", "Largest memory held by the run's processes together so far", Unit.BYTES
    ),
)


def _verdict(prefix: str, student: str) -> tuple[MetricSpec, ...]:
    """A critic's figures of pairs, each with the ends of its interval."""
    figures = (
        ("d_acc", f"Share of held-out prompts whose teacher's response scores above {student}", Unit.RATIO),
        ("score_diff", f"Mean of the teacher's minus {student}'s score on held-out prompts", Unit.NONE),
        ("auc", f"Probability that a teacher's score exceeds that of {student}, across prompts", Unit.RATIO),
    )
    return tuple(
        spec
        for name, description, unit in figures
        for spec in (
            _gauge(f"{prefix}{name}", description, unit),
            _gauge(f"{prefix}{name}_low", f"Lower end of the 95 % interval of {prefix}{name}", unit),
            _gauge(f"{prefix}{name}_high", f"Upper end of the 95 % interval of {prefix}{name}", unit),
        )
    )


_EVAL = (
    *_verdict("eval/", "the fixed one of the policy before training"),
    _gauge("eval/teacher_score_mean", "Mean score of the teacher's responses to held-out prompts"),
    _gauge("eval/student_score_mean", "Mean score of the fixed responses of the policy before training"),
    *_verdict("eval/current_", "a new one of the policy as it is"),
    _gauge("eval/reward", "Mean score, by the critic as it is, of new responses to held-out prompts"),
    _gauge(
        "eval/teacher_nll",
        "Negative log-likelihood of the teacher's text under the policy, per token",
        Unit.NATS,
    ),
    _gauge("eval/response_length", "Mean length of new responses to held-out prompts", Unit.TOKENS),
    _gauge("eval/teacher_length", "Mean length of the teacher's responses to held-out prompts", Unit.TOKENS),
    _gauge("eval/distinct_1", "Distinct words as a share of all words in new held-out responses", Unit.RATIO),
    _gauge(
        "eval/distinct_2", "Distinct word pairs as a share of all pairs in new held-out responses", Unit.RATIO
    ),
    _gauge(
        "eval/greedy_unchanged",
        "Share of held-out prompts whose greedy answer is the same as before training; 1: the policy stood still",
        Unit.RATIO,
    ),
    _gauge(
        "eval/identical_text_diff",
        "Largest |score of the teacher's text as the teacher's - its score as an answer|; exactly 0 in a sound run",
    ),
)

_SERVE = (
    _gauge("serve/published_step", "Optimiser steps of the critic that was published last"),
    _gauge(
        "serve/published_fingerprint",
        "First 12 hex digits, as a number, of the fingerprint of the critic that was published last",
    ),
    _gauge(
        "serve/publish_seconds",
        "Time in which the critic checked, fingerprinted and put itself into the object store, beside the step",
        Unit.SECONDS,
    ),
    _gauge("serve/published_bytes", "Size of the published critic", Unit.BYTES),
    _gauge("serve/replicas", "Replicas that have asked for a critic of late"),
    _gauge("serve/served_step", "Optimiser steps of the oldest critic that a replica serves"),
    _counter("serve/troubles", "Troubles of the endpoint that were told with the step"),
)

_RUN = (
    _gauge("train/step", "Steps done"),
    _gauge("train/stage", "Stage: 0 warm-up, 1 adversarial"),
    _gauge("data/epoch", "Passes over the training prompts that have begun or been done", Unit.EPOCHS),
    _gauge("data/admitted_prompts", "Training prompts that the curriculum lets in at present"),
    _gauge("data/position", "Prompts of the present epoch that have been used"),
    _counter("health/findings", "Health rules that began to hold"),
    _gauge("health/active_rules", "Health rules that hold"),
    _gauge("health/critical_rules", "Health rules of severity critical that hold"),
    _gauge("health/answers", "Settings that health rules have changed, and not put back yet"),
)

METRICS: Mapping[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        *_CRITIC,
        *_REWARD,
        *_ACTOR,
        *_PREFERENCE,
        *_ROLLOUT,
        *_TIMING,
        *_PERF,
        *_EVAL,
        *_SERVE,
        *_RUN,
    )
}
"""All metrics by name."""

# Nats, epochs and updates are no units of Prometheus; their names go without.
_SUFFIXED = {Unit.RATIO, Unit.SECONDS, Unit.BYTES, Unit.TOKENS, Unit.TOKENS_PER_SECOND}


def metric_spec(name: str) -> MetricSpec:
    """The registered metric of a name.

    Raises:
        ValueError: If no metric is called so.
    """
    try:
        return METRICS[name]
    except KeyError:
        raise ValueError(
            f"'{name}' is not a registered metric: add it to gad_ray.observability.metrics"
        ) from None


def check_metrics(stage: str, metrics: Mapping[str, float]) -> None:
    """Refuse what is not registered.

    Raises:
        ValueError: For an unknown stage, an unknown metric, or a counter below zero.
    """
    if stage not in STAGES:
        raise ValueError(f"'{stage}' is not a stage: {', '.join(STAGES)}")
    for name, value in metrics.items():
        if metric_spec(name).kind is Kind.COUNTER and value < 0:
            raise ValueError(f"the counter '{name}' cannot count {value} events")


def prometheus_name(name: str) -> str:
    """The metric's name in Prometheus: ``gad_`` first, base unit last, ``_total`` after a counter.

    Ray exposes it with one more prefix, ``ray_``.

    Raises:
        ValueError: If no metric is called so.
    """
    spec = metric_spec(name)
    # The unit stands at the end and in full: timing_s/step → gad_timing_step_seconds.
    base = "gad_" + re.sub(r"_per_s$", "_per_second", name.replace("timing_s/", "timing/")).replace("/", "_")
    if spec.unit in _SUFFIXED and not base.endswith(f"_{spec.unit.value}"):
        base += f"_{spec.unit.value}"
    return base + "_total" if spec.kind is Kind.COUNTER else base
