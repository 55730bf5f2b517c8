"""The importance weights that the configuration asks for, and the sizes that every mean is taken over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from torch import Tensor

from gad_ray.config.policy import ImportanceConfig, RejectedImportance, TruncatedImportance
from gad_ray.core.importance import rejected_weights, truncated_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sizes of a mini-batch over all ranks: the denominators of every mean."""

    sequences: int
    tokens: int


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
