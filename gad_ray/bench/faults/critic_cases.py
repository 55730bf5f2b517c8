"""Faults of the critic: its settings, its loss, and how it is evaluated."""

from __future__ import annotations

from gad_ray.bench.faults.case import NAN_FROM, OTHER_TEMPERATURE, Case
from gad_ray.bench.faults.rows import few_prompts

_TOO_SURE = ("critic-overconfident", "loss-saturated", "scores-too-far-apart", "extreme-scores")
"""What a critic that tells the sides apart at once comes to, whatever lets it."""

CRITIC_CASES: tuple[Case, ...] = (
    Case(
        name="temperature-too-low",
        done="τ 0.05 in place of 2",
        warmup=10,
        game=0,
        overrides=("critic.loss.temperature.value=0.05",),
        # A sharp loss has a steep gradient until it is saturated.
        named_by=("loss-saturated", "gradient-explosion"),
        symptoms=("critic-overconfident", "gradient-vanished"),
    ),
    Case(
        name="critic-rate-too-high",
        done="the critic's learning rates × 500",
        warmup=12,
        game=0,
        overrides=("critic.optimizer.lr=0.3", "critic.head_lr=0.9"),
        named_by=("gradient-explosion", "extreme-scores", "scores-too-far-apart", "score-collapse"),
        refused_with="have a score that is not finite",
        symptoms=(
            "ranking-loss-oscillates",
            "discriminator-reward-out-of-range",
            "critic-overconfident",
            "loss-saturated",
            "gradient-vanished",
        ),
    ),
    Case(
        name="scores-without-bounds",
        done="no score regularisation, the value head's rate × 50",
        warmup=14,
        game=0,
        overrides=("critic.loss.score_reg.weight=0.0", "critic.head_lr=0.1"),
        named_by=("extreme-scores", "scores-too-far-apart", "discriminator-reward-out-of-range"),
        symptoms=("critic-overconfident", "loss-saturated", "gradient-explosion"),
    ),
    Case(
        name="critic-stands-still",
        done="the critic's learning rates at 1e-9",
        warmup=4,
        game=12,
        overrides=("critic.optimizer.lr=1e-9", "critic.head_lr=1e-9"),
        named_by=("score-collapse", "critic-blind", "scores-indistinct"),
    ),
    Case(
        name="end-of-turn-on-one-side",
        done="the student's end-of-turn token inside the critic's mask, the teacher's not",
        warmup=10,
        game=0,
        heldout=16,
        eval_every=5,
        injection="one-sided-end",
        named_by=("identical-text-differs",),
        symptoms=_TOO_SURE,
    ),
    Case(
        name="other-template-at-evaluation",
        done="evaluation renders through the model's own template, training through chatml",
        warmup=6,
        game=0,
        heldout=16,
        eval_every=2,
        injection="other-template-at-evaluation",
        named_by=("fingerprint-differs",),
        symptoms=("train-eval-gap", "evaluation-near-collapse"),
    ),
    Case(
        name="other-temperature-at-evaluation",
        done=f"evaluation samples at {OTHER_TEMPERATURE}, training at 0.8",
        warmup=2,
        game=0,
        heldout=16,
        injection="other-temperature-at-evaluation",
        named_by=("sampling-differs",),
    ),
    Case(
        name="bfloat16-head",
        done="scores that went through bfloat16",
        warmup=8,
        game=0,
        injection="rounded-scores",
        named_by=("scores-rounded",),
    ),
    Case(
        name="sides-swapped",
        done="teacher and student swapped in the critic's loss",
        warmup=4,
        game=8,
        injection="swapped-sides",
        named_by=("critic-blind",),
        symptoms=("scores-indistinct",),
    ),
    Case(
        name="row-not-a-number",
        done=f"from step {NAN_FROM} on a row whose score is not a number",
        warmup=6,
        game=0,
        since=NAN_FROM,
        injection="nan-row",
        refused_with="have a score that is not finite",
    ),
    Case(
        name="critic-learns-by-heart",
        done="4 prompts alone, 6 updates a step, no replay, the critic's rate × 3",
        warmup=16,
        game=0,
        heldout=24,
        eval_every=4,
        overrides=("critic.updates_per_step=6", "critic.optimizer.lr=2e-3"),
        rows=few_prompts,
        named_by=("train-eval-gap", "evaluation-near-collapse"),
        symptoms=(*_TOO_SURE, "gradient-vanished", "ranking-loss-oscillates"),
    ),
)
