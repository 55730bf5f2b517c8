"""Which policy loss and which importance weights the configuration asks for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gad_ray.config.policy import (
    CispoLoss,
    GspoLoss,
    ImportanceConfig,
    PolicyLossConfig,
    PpoLoss,
    TokenLoss,
    TruncatedImportance,
)
from gad_ray.core.importance import rejected_weights, truncated_weights
from gad_ray.core.policy_loss import (
    Aggregate,
    PolicyLossStats,
    cispo_loss,
    constant_divisor,
    gspo_loss,
    ppo_loss,
    reinforce_loss,
    sequence_mean,
    token_mean,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sizes of a mini-batch over all ranks: the denominators of every mean."""

    sequences: int
    tokens: int


def policy_loss(
    config: PolicyLossConfig,
    logprobs: Tensor,
    *,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    weights: Tensor | None,
    totals: Totals,
) -> tuple[Tensor, PolicyLossStats]:
    """A micro-batch's share of the loss.

    Args:
        config: Which loss, with its settings.
        logprobs: [batch, seq] log π of the response tokens (nats), with gradient.
        old_logprobs: The same under π_old.
        advantages: [batch] one advantage a response.
        mask: [batch, seq] True on response tokens.
        weights: [batch, seq] importance weights, detached; None: 1.
        totals: Sizes of the mini-batch that this is a part of.
    """
    if isinstance(config, GspoLoss):
        return gspo_loss(
            logprobs,
            old_logprobs=old_logprobs,
            advantages=advantages,
            mask=mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            num_sequences=totals.sequences,
            weights=weights,
        )
    aggregate = _aggregate(config, totals)
    if isinstance(config, PpoLoss):
        return ppo_loss(
            logprobs,
            old_logprobs=old_logprobs,
            advantages=advantages,
            mask=mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            num_tokens=totals.tokens,
            aggregate=aggregate,
            weights=weights,
        )
    if isinstance(config, CispoLoss):
        return cispo_loss(
            logprobs,
            old_logprobs=old_logprobs,
            advantages=advantages,
            mask=mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            num_tokens=totals.tokens,
            aggregate=aggregate,
            weights=weights,
        )
    return reinforce_loss(
        logprobs,
        old_logprobs=old_logprobs,
        advantages=advantages,
        mask=mask,
        num_tokens=totals.tokens,
        aggregate=aggregate,
        weights=weights,
    )


def importance_weights(
    config: ImportanceConfig | None, old_logprobs: Tensor, *, rollout_logprobs: Tensor, mask: Tensor
) -> Tensor | None:
    """[batch, seq] weights of the tokens, or None where nothing is corrected."""
    if config is None:
        return None
    if isinstance(config, TruncatedImportance):
        return truncated_weights(old_logprobs, rollout_logprobs=rollout_logprobs, mask=mask, cap=config.cap)
    return rejected_weights(
        old_logprobs,
        rollout_logprobs=rollout_logprobs,
        mask=mask,
        cap=config.cap,
        by_sequence=config.unit == "sequence",
    )


def _aggregate(config: TokenLoss, totals: Totals) -> Aggregate:
    if config.aggregation == "sequence_mean":
        return sequence_mean(totals.sequences)
    if config.length_divisor is not None:
        return constant_divisor(totals.sequences, config.length_divisor)
    return token_mean(totals.tokens)
