"""Which policy loss and which importance weights the configuration asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from torch import Tensor

from gad_ray.config.policy import (
    CispoLoss,
    GspoLoss,
    ImportanceConfig,
    PolicyLossConfig,
    PpoLoss,
    ReinforceLoss,
    RejectedImportance,
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
    shared: dict[str, Any] = {
        "old_logprobs": old_logprobs,
        "advantages": advantages,
        "mask": mask,
        "weights": weights,
    }
    match config:
        case GspoLoss(clip_low=low, clip_high=high):
            sequences = totals.sequences
            return gspo_loss(logprobs, clip_low=low, clip_high=high, num_sequences=sequences, **shared)
        case PpoLoss(clip_low=low, clip_high=high):
            shared |= {"num_tokens": totals.tokens, "aggregate": _aggregate(config, totals)}
            return ppo_loss(logprobs, clip_low=low, clip_high=high, **shared)
        case CispoLoss(clip_low=low, clip_high=high):
            shared |= {"num_tokens": totals.tokens, "aggregate": _aggregate(config, totals)}
            return cispo_loss(logprobs, clip_low=low, clip_high=high, **shared)
        case ReinforceLoss():
            shared |= {"num_tokens": totals.tokens, "aggregate": _aggregate(config, totals)}
            return reinforce_loss(logprobs, **shared)
        case _:
            assert_never(config)


def importance_weights(
    config: ImportanceConfig | None, old_logprobs: Tensor, *, rollout_logprobs: Tensor, mask: Tensor
) -> Tensor | None:
    """[batch, seq] weights of the tokens, or None where nothing is corrected."""
    match config:
        case None:
            return None
        case TruncatedImportance(cap=cap):
            return truncated_weights(old_logprobs, rollout_logprobs=rollout_logprobs, mask=mask, cap=cap)
        case RejectedImportance(cap=cap, unit=unit):
            return rejected_weights(
                old_logprobs,
                rollout_logprobs=rollout_logprobs,
                mask=mask,
                cap=cap,
                by_sequence=unit == "sequence",
            )
        case _:
            assert_never(config)


def _aggregate(config: TokenLoss, totals: Totals) -> Aggregate:
    match config.aggregation:
        case "sequence_mean":
            return sequence_mean(totals.sequences)
        case "constant":
            assert config.length_divisor is not None  # seen to where it is configured
            return constant_divisor(totals.sequences, config.length_divisor)
        case "token_mean":
            return token_mean(totals.tokens)
        case _:
            assert_never(config.aggregation)
