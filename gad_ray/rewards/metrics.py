"""What the reward stage tells: rewards, their terms, and the responses that they are of."""

from __future__ import annotations

from gad_ray.observability.metrics import Unit, counter, gauge, spread

METRICS = (
    *spread(
        "critic/rewards/", "the reward, discriminator and format together, over samples that were not aborted"
    ),
    gauge("reward/discriminator_mean", "Mean of the discriminator's part of the reward"),
    gauge("reward/discriminator_std", "Standard deviation of the discriminator's part of the reward"),
    gauge("format/reward_avg", "Mean of the format rewards' weighted sum"),
    counter("reward/failed_samples", "Responses left out of the update because a reward function failed"),
    *(
        gauge(f"format/{name}", f"Mean of the format reward {what}, before its weight")
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
    gauge("actor/zero_spread_groups", "Share of groups whose rewards are all equal", Unit.RATIO),
    gauge("response_length/mean", "Mean length of the policy's responses, without end of turn", Unit.TOKENS),
    gauge("response_length/min", "Shortest of the policy's responses", Unit.TOKENS),
    gauge("response_length/max", "Longest of the policy's responses", Unit.TOKENS),
    gauge("response_length/clip_ratio", "Share of responses cut at the token limit", Unit.RATIO),
    gauge(
        "response_length/teacher_mean",
        "Mean length of the teacher's responses to the same prompts, in the policy's tokens without end of turn",
        Unit.TOKENS,
    ),
    gauge("prompt_length/mean", "Mean length of the rendered prompts", Unit.TOKENS),
    gauge("prompt_length/max", "Longest of the rendered prompts", Unit.TOKENS),
    counter("rollout/responses", "Responses that were generated"),
    counter("rollout/failed", "Responses left out because their generation failed even when retried"),
    counter("rollout/retried", "Generations that had to be repeated"),
)
