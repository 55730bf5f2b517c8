"""What the learners of critic and policy tell."""

from __future__ import annotations

from gad_ray.observability.metrics import Unit, counter, gauge, spread

METRICS = (
    gauge(
        "critic/d_acc",
        "Share of fresh pairs in which the teacher scores higher, before the update",
        Unit.RATIO,
    ),
    gauge("critic/d_loss", "Discriminator loss: ranking loss plus score regularisation"),
    gauge(
        "critic/ranking_loss",
        "Mean softplus(-(d - margin) / temperature), or the cross-entropy of both sides",
    ),
    gauge("critic/score_reg", "Score regularisation, weighted, as it enters the loss"),
    gauge(
        "critic/score_diff", "Mean of teacher's minus student's raw score on fresh pairs, before the update"
    ),
    gauge("critic/sigmoid_mean", "Mean sigmoid(d / temperature); near 1 the loss is saturated", Unit.RATIO),
    *spread("critic/teacher_score_", "the teacher's raw scores, before the update"),
    *spread("critic/student_score_", "the student's raw scores, before the update"),
    gauge("critic/score_range", "Largest minus smallest of the teacher's raw scores, before the update"),
    gauge("critic/score_range_both", "Largest minus smallest raw score of both sides, before the update"),
    gauge(
        "critic/score_separation",
        "Difference of the sides' mean raw scores over the root of the mean of their variances",
    ),
    gauge(
        "critic/mix_raw_score_diff", "Pooling mix: mean of teacher's minus student's score by the last token"
    ),
    gauge(
        "critic/mix_norm_score_diff",
        "Pooling mix: the same of the last token's score divided by the length in scored tokens",
    ),
    gauge(
        "critic/rounded_scores",
        "Share of the step's scores that bfloat16 holds exactly; near 0 unless something rounds them",
        Unit.RATIO,
    ),
    gauge("critic/score_length_corr", "Correlation of the student's score and response length"),
    gauge("critic/temperature", "Temperature of the ranking loss"),
    gauge("critic/batch_mean", "Mean that batch normalisation removed from the scores"),
    gauge("critic/batch_std", "Standard deviation that batch normalisation divided the scores by"),
    *(
        gauge(f"critic/trained_{name}", f"{what}, over fresh and replayed responses as trained with", unit)
        for name, what, unit in (
            ("d_loss", "Discriminator loss", Unit.NONE),
            ("ranking_loss", "Ranking loss", Unit.NONE),
            ("score_reg", "Score regularisation", Unit.NONE),
            ("sigmoid_mean", "Mean sigmoid(d / temperature)", Unit.RATIO),
            ("batch_mean", "Mean that batch normalisation removed", Unit.NONE),
            ("batch_std", "Standard deviation that batch normalisation divided by", Unit.NONE),
        )
    ),
    counter(
        "critic/truncated_excluded", "Responses cut at the token limit that the critic did not learn from"
    ),
    gauge("critic/replay_size", "Past responses in the critic's replay buffer"),
    gauge("critic/replay_age", "Mean age, in steps, of the responses that were replayed"),
    gauge("critic/grad_norm", "Global gradient norm of the critic after clipping"),
    gauge("critic/grad_norm_before_clip", "Global gradient norm of the critic before clipping"),
    gauge("critic/lr", "Learning rate of the critic's backbone"),
    gauge("reward/kl_penalty_mean", "Mean KL penalty taken from the rewards before the advantages"),
    gauge("actor/pg_loss", "Policy-gradient loss"),
    gauge("actor/kl_loss", "KL divergence from the reference policy, before its coefficient", Unit.NATS),
    gauge("actor/kl_coef", "Coefficient of the KL term"),
    gauge(
        "actor/kl_share",
        "Share of the KL term in the sum of absolute gradients of the loss by log-probabilities",
        Unit.RATIO,
    ),
    gauge("actor/ce_loss", "Cross-entropy of the teacher's text under the policy, per token", Unit.NATS),
    gauge("actor/entropy", "Mean entropy of the policy per response token", Unit.NATS),
    gauge("actor/grad_norm", "Global gradient norm of the policy after clipping"),
    gauge("actor/grad_norm_before_clip", "Global gradient norm of the policy before clipping"),
    gauge("actor/clipfrac", "Share of tokens or sequences whose ratio was clipped", Unit.RATIO),
    gauge("actor/ratio_gap_max", "Largest |rho - 1| of a token, rho = new / old policy's probability"),
    gauge("actor/adv_std", "Standard deviation of the advantages"),
    gauge("actor/adv_max", "Largest advantage"),
    counter("actor/dropped_samples", "Responses left out of the update because their group had no spread"),
    counter("actor/lone_samples", "Responses left out of the update because the rest of their group failed"),
    counter(
        "actor/surplus_samples", "Responses left out of the update because a refill had filled the batch"
    ),
    gauge("actor/importance_weight_mean", "Mean importance weight of the rollout's tokens, as it was used"),
    gauge(
        "actor/importance_clipfrac",
        "Share of tokens whose importance weight was truncated or rejected",
        Unit.RATIO,
    ),
    counter(
        "actor/importance_rejected_tokens",
        "Tokens left out because their importance weight was above the cap",
    ),
    gauge("actor/lr", "Learning rate of the policy"),
    gauge("rollout/mismatch_kl", "KL divergence of the rollout from the trainer, by k3 per token", Unit.NATS),
    gauge(
        "rollout/mismatch_abs", "Mean size of the rollout's minus the trainer's log-probability", Unit.NATS
    ),
    gauge("dpo/loss", "Preference loss: mean -log sigmoid of the margin, label smoothing included"),
    gauge(
        "dpo/margin", "Mean difference of the implicit rewards of the teacher's and the student's responses"
    ),
    gauge("dpo/accuracy", "Share of pairs in which the teacher's implicit reward is higher", Unit.RATIO),
    gauge("dpo/chosen_reward", "Mean implicit reward, beta * log(pi / pi_ref), of the teacher's responses"),
    gauge("dpo/rejected_reward", "The same of the student's responses"),
    counter("dpo/pairs", "Pairs trained on"),
    gauge("perf/train_tokens_per_s", "Tokens trained on per second of both updates", Unit.TOKENS_PER_SECOND),
)
