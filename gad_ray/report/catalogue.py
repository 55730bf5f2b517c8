"""Which curves are drawn together, under which heading, and where a healthy run keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from gad_ray.health import bands

WARMUP = ("warmup",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A range that a healthy run keeps to.

    Attributes:
        low: Its lower end; None for none.
        high: Its upper end; None for none.
        label: What it says.
        stages: The stages in which it means something; all when empty.
    """

    low: float | None
    high: float | None
    label: str
    stages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves over the steps in one picture.

    Attributes:
        title: Its heading.
        metrics: Names of the curves, the most telling first.
        bands: Where they should be.
        spans: (lower, upper, of) metrics between which an area is filled, and the curve whose colour it has.
        log: Whether a logarithmic scale is offered.
    """

    title: str
    metrics: tuple[str, ...]
    bands: tuple[Band, ...] = ()
    spans: tuple[tuple[str, str, str], ...] = ()
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Charts under one heading."""

    id: str
    short: str
    title: str
    text: str
    charts: tuple[Chart, ...]


_GRADIENT = Band(low=0.3, high=5.0, label="healthy 0.3–5")


def _band(band: tuple[float, float], label: str, stages: tuple[str, ...]) -> Band:
    return Band(low=band[0], high=band[1], label=label.format(*band), stages=stages)


def _spread_chart(title: str, prefix: str) -> Chart:
    return Chart(
        title=title,
        metrics=(f"{prefix}mean", f"{prefix}std"),
        spans=((f"{prefix}min", f"{prefix}max", f"{prefix}mean"),),
    )


SECTIONS: tuple[Section, ...] = (
    Section(
        id="critic",
        short="Critic",
        title="Critic",
        text=(
            "How well the critic tells the teacher's text from the student's, on responses it has not learned "
            "from yet. Only differences of scores within one prompt mean anything."
        ),
        charts=(
            Chart(
                title="Teacher preferred",
                metrics=("critic/d_acc",),
                bands=(
                    _band(bands.D_ACC, "warm-up target {}–{}", WARMUP),
                    _band(
                        (bands.D_ACC[1], bands.D_ACC_LIMIT), "up to {1} while nothing is saturated", WARMUP
                    ),
                ),
            ),
            Chart(
                title="Score difference, teacher − student",
                metrics=("critic/score_diff",),
                bands=(_band(bands.SCORE_DIFF, "warm-up target {:g}–{:g}", WARMUP),),
            ),
            Chart(
                title="Scores of both sides",
                metrics=("critic/teacher_score_mean", "critic/student_score_mean"),
                spans=(
                    (
                        "critic/teacher_score_min",
                        "critic/teacher_score_max",
                        "critic/teacher_score_mean",
                    ),
                    (
                        "critic/student_score_min",
                        "critic/student_score_max",
                        "critic/student_score_mean",
                    ),
                ),
                bands=(Band(low=-10.0, high=10.0, label="not extreme: −10 to 10"),),
            ),
            Chart(
                title="Spread of the scores",
                metrics=(
                    "critic/teacher_score_std",
                    "critic/student_score_std",
                    "critic/score_range",
                    "critic/score_range_both",
                ),
            ),
            Chart(title="Separation in units of the scatter", metrics=("critic/score_separation",)),
            Chart(
                title="Parts of the mixed score's difference",
                metrics=("critic/mix_raw_score_diff", "critic/mix_norm_score_diff"),
            ),
            Chart(
                title="Discriminator loss",
                metrics=("critic/d_loss", "critic/ranking_loss", "critic/score_reg"),
                log=True,
            ),
            Chart(
                title="Saturation, mean sigmoid(d / τ)",
                metrics=("critic/sigmoid_mean",),
                bands=(
                    Band(low=None, high=bands.SATURATED, label=f"not saturated: below {bands.SATURATED}"),
                ),
            ),
            Chart(
                title="Critic's gradient norm",
                metrics=("critic/grad_norm_before_clip", "critic/grad_norm"),
                bands=(_GRADIENT,),
                log=True,
            ),
            Chart(
                title="Correlation of score and length",
                metrics=("critic/score_length_corr",),
                bands=(Band(low=-0.5, high=0.5, label="no shortcut: −0.5 to 0.5"),),
            ),
            Chart(title="Temperature of the loss", metrics=("critic/temperature",)),
            Chart(title="Batch normalisation", metrics=("critic/batch_mean", "critic/batch_std")),
            Chart(
                title="With replay: the loss that was trained with",
                metrics=(
                    "critic/trained_d_loss",
                    "critic/trained_ranking_loss",
                    "critic/trained_score_reg",
                ),
                log=True,
            ),
            Chart(
                title="With replay: saturation as trained with",
                metrics=("critic/trained_sigmoid_mean",),
            ),
            Chart(
                title="With replay: batch normalisation as trained with",
                metrics=("critic/trained_batch_mean", "critic/trained_batch_std"),
            ),
            Chart(title="Critic's learning rate", metrics=("critic/lr",), log=True),
            Chart(title="Replay buffer", metrics=("critic/replay_size", "critic/replay_age")),
        ),
    ),
    Section(
        id="reward",
        short="Reward",
        title="Reward",
        text=(
            "What the policy is trained on. A negative reward is no fault: only differences within a group of "
            "responses count."
        ),
        charts=(
            _spread_chart("Reward", "critic/rewards/"),
            Chart(
                title="Discriminator's part of the reward",
                metrics=("reward/discriminator_mean", "reward/discriminator_std"),
                bands=(Band(low=-10.0, high=5.0, label="in range: −10 to 5"),),
            ),
            Chart(
                title="Format rewards",
                metrics=(
                    "format/reward_avg",
                    "format/no_repetition",
                    "format/pattern",
                    "format/json",
                    "format/leaked_control",
                    "format/length_window",
                    "format/language",
                    "format/custom",
                ),
            ),
            Chart(title="KL penalty in the reward", metrics=("reward/kl_penalty_mean",)),
        ),
    ),
    Section(
        id="policy",
        short="Policy",
        title="Policy",
        text="What the student's updates look like.",
        charts=(
            Chart(title="Policy's loss", metrics=("actor/pg_loss",)),
            Chart(title="Cross-entropy of the teacher's text", metrics=("actor/ce_loss",)),
            Chart(title="KL from the reference", metrics=("actor/kl_loss",), log=True),
            Chart(
                title="KL term: coefficient and share of the loss",
                metrics=("actor/kl_share", "actor/kl_coef"),
                bands=(Band(low=None, high=0.5, label="KL leads no more than half: below 0.5"),),
            ),
            Chart(title="Entropy", metrics=("actor/entropy",)),
            Chart(
                title="Policy's gradient norm",
                metrics=("actor/grad_norm_before_clip", "actor/grad_norm"),
                log=True,
            ),
            Chart(title="Advantages", metrics=("actor/adv_std", "actor/adv_max")),
            Chart(title="Groups without spread", metrics=("actor/zero_spread_groups",)),
            Chart(
                title="Probability ratio",
                metrics=("actor/ratio_gap_max", "actor/clipfrac"),
            ),
            Chart(
                title="Importance weights",
                metrics=("actor/importance_weight_mean", "actor/importance_clipfrac"),
            ),
            Chart(
                title="Samples left out of the update",
                metrics=(
                    "actor/dropped_samples",
                    "actor/lone_samples",
                    "actor/surplus_samples",
                    "reward/failed_samples",
                    "critic/truncated_excluded",
                    "actor/importance_rejected_tokens",
                ),
            ),
            Chart(title="Policy's learning rate", metrics=("actor/lr",), log=True),
            Chart(
                title="Skipped optimiser steps",
                metrics=("actor/skipped_steps", "critic/skipped_steps"),
                bands=(Band(low=0.0, high=0.0, label="none"),),
            ),
        ),
    ),
    Section(
        id="preference",
        short="Preference",
        title="Preference fit",
        text="An offline fit to the teacher's text against the student's own.",
        charts=(
            Chart(title="Preference loss", metrics=("dpo/loss",)),
            Chart(
                title="Implicit rewards", metrics=("dpo/margin", "dpo/chosen_reward", "dpo/rejected_reward")
            ),
            Chart(title="Teacher preferred by the policy", metrics=("dpo/accuracy",)),
            Chart(title="Pairs", metrics=("dpo/pairs",)),
        ),
    ),
    Section(
        id="lengths",
        short="Length",
        title="Response length",
        text="Length is the first shortcut that a critic finds, and the first thing that a policy changes.",
        charts=(
            Chart(
                title="Response length",
                metrics=("response_length/mean", "response_length/teacher_mean"),
                spans=(("response_length/min", "response_length/max", "response_length/mean"),),
            ),
            Chart(title="Responses cut at the limit", metrics=("response_length/clip_ratio",)),
            Chart(title="Prompt length", metrics=("prompt_length/mean", "prompt_length/max")),
        ),
    ),
    Section(
        id="rollout",
        short="Rollout",
        title="Rollout and weight sync",
        text="Whether the engine that writes the responses is the policy that is trained.",
        charts=(
            Chart(
                title="Rollout against trainer",
                metrics=("rollout/mismatch_abs", "rollout/mismatch_kl"),
                bands=(Band(low=None, high=0.05, label="agree: below 0.05"),),
                log=True,
            ),
            Chart(title="Gap of the probe after a sync", metrics=("sync/probe_gap",), log=True),
            Chart(title="Bytes of a sync", metrics=("sync/bytes",)),
            Chart(title="Staleness", metrics=("rollout/staleness",)),
            Chart(title="Responses and tokens", metrics=("rollout/tokens", "rollout/responses")),
            Chart(
                title="Generations that failed",
                metrics=("rollout/failed", "rollout/retried"),
                bands=(Band(low=0.0, high=0.0, label="none"),),
            ),
            Chart(
                title="Refills",
                metrics=("rollout/refill_rounds", "rollout/refilled_groups", "rollout/unfilled_groups"),
            ),
        ),
    ),
    Section(
        id="speed",
        short="Speed",
        title="Speed and memory",
        text="",
        charts=(
            Chart(title="Throughput", metrics=("perf/rollout_tokens_per_s", "perf/train_tokens_per_s")),
            Chart(title="Time of a step against its stage's median", metrics=("perf/step_time_ratio",)),
            Chart(title="Memory", metrics=("perf/memory_bytes", "perf/memory_peak_bytes")),
        ),
    ),
    Section(
        id="eval",
        short="Evaluation",
        title="Evaluation on held-out prompts",
        text=(
            "The same prompts every time: with the fixed answers of the policy before training, which show what "
            "the critic does, and with its answers of the moment, which show what both do. A shaded range is a "
            "95 % confidence interval, where one was taken: a difference smaller than it is none."
        ),
        charts=(
            Chart(
                title="Teacher preferred on held-out prompts",
                metrics=("eval/d_acc", "eval/current_d_acc", "critic/d_acc"),
            ),
            Chart(
                title="Score difference on held-out prompts",
                metrics=("eval/score_diff", "eval/current_score_diff", "critic/score_diff"),
            ),
            Chart(title="AUC on held-out prompts", metrics=("eval/auc", "eval/current_auc")),
            Chart(
                title="Scores on held-out prompts",
                metrics=("eval/teacher_score_mean", "eval/student_score_mean", "eval/reward"),
            ),
            Chart(title="Likelihood of the teacher's text", metrics=("eval/teacher_nll",)),
            Chart(title="Length of the answers", metrics=("eval/response_length", "eval/teacher_length")),
            Chart(title="Diversity of the answers", metrics=("eval/distinct_1", "eval/distinct_2")),
            Chart(title="Same greedy answers as before training", metrics=("eval/greedy_unchanged",)),
            Chart(
                title="Score difference of identical text",
                metrics=("eval/identical_text_diff",),
                bands=(Band(low=0.0, high=0.0, label="exactly 0"),),
            ),
            Chart(title="The critic that was evaluated is the run's", metrics=("critic/same_as_evaluated",)),
        ),
    ),
    Section(
        id="course",
        short="Data",
        title="Data and health",
        text="",
        charts=(
            Chart(
                title="Health rules that hold",
                metrics=("health/active_rules", "health/critical_rules", "health/findings", "health/answers"),
            ),
            Chart(title="Passes over the data", metrics=("data/epoch",)),
            Chart(title="Curriculum", metrics=("data/admitted_prompts",)),
            Chart(title="The critic online", metrics=("serve/published_step", "serve/served_step")),
            Chart(title="Its endpoint", metrics=("serve/replicas", "serve/troubles")),
        ),
    ),
)
"""All sections; metrics that none of them names are drawn in one of their own."""

TIMING = Section(
    id="seconds", short="Time", title="Seconds per step", text="Parts of a step, in each run.", charts=()
)
"""Where runs are compared; the report of one run stacks them."""

OTHER = Section(
    id="other", short="Other", title="Other curves", text="Metrics that no other chart shows.", charts=()
)

NOT_DRAWN = frozenset({"train/step"})
"""Numbers that only count along with the steps."""
