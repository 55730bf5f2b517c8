"""What an evaluation on held-out prompts tells."""

from __future__ import annotations

from gad_ray.observability.metrics import MetricSpec, Unit, gauge


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
            gauge(f"{prefix}{name}", description, unit),
            gauge(f"{prefix}{name}_low", f"Lower end of the 95 % interval of {prefix}{name}", unit),
            gauge(f"{prefix}{name}_high", f"Upper end of the 95 % interval of {prefix}{name}", unit),
        )
    )


METRICS = (
    *_verdict("eval/", "the fixed one of the policy before training"),
    gauge("eval/teacher_score_mean", "Mean score of the teacher's responses to held-out prompts"),
    gauge("eval/student_score_mean", "Mean score of the fixed responses of the policy before training"),
    *_verdict("eval/current_", "a new one of the policy as it is"),
    gauge("eval/reward", "Mean score, by the critic as it is, of new responses to held-out prompts"),
    gauge(
        "eval/teacher_nll",
        "Negative log-likelihood of the teacher's text under the policy, per token",
        Unit.NATS,
    ),
    gauge("eval/response_length", "Mean length of new responses to held-out prompts", Unit.TOKENS),
    gauge("eval/teacher_length", "Mean length of the teacher's responses to held-out prompts", Unit.TOKENS),
    gauge("eval/distinct_1", "Distinct words as a share of all words in new held-out responses", Unit.RATIO),
    gauge(
        "eval/distinct_2", "Distinct word pairs as a share of all pairs in new held-out responses", Unit.RATIO
    ),
    gauge(
        "eval/greedy_unchanged",
        "Share of held-out prompts whose greedy answer is the same as before training; 1: the policy stood still",
        Unit.RATIO,
    ),
    gauge(
        "eval/identical_text_diff",
        "Largest |score of the teacher's text as the teacher's - its score as an answer|; exactly 0 in a sound run",
    ),
)
