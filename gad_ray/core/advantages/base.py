"""What the advantages share: their settings, the batch that they are computed of, the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from gad_ray.registry import Registry
from gad_ray.strict_model import StrictModel, Variant

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class RefillConfig(StrictModel):
    """New prompts in place of groups without spread, within the step (DAPO's dynamic sampling, 2503.14476).

    Spread is judged by the critic as it is when the step begins. The critic learns from every response once,
    those of dropped groups too; the policy from at most ``prompts_per_step`` groups.
    """

    max_rounds: int = Field(default=2, ge=1)
    """Most times that a step draws again; places that are still empty then stay empty."""

    oversample: float = Field(default=1.0, ge=1.0)
    """Prompts drawn for each empty place. Above 1 a round fills more surely; the surplus is not trained on."""


class GroupAdvantage(Variant):
    """What the settings of all advantages share."""

    zero_spread: Literal["keep", "drop"] = "keep"
    """Groups whose rewards are all equal carry no signal: keep them (they add zeros, and tokens to the
    denominators), or drop them from the loss and its denominators."""

    refill: RefillConfig | None = None
    """With ``drop``, and only then: draw new prompts in place of those dropped; absent: the batch is smaller."""

    @model_validator(mode="after")
    def _only_what_is_dropped_is_refilled(self) -> Self:
        if self.refill is not None and self.zero_spread != "drop":
            raise ValueError("refill replaces groups that are dropped: set zero_spread to 'drop' with it")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """The rewards of a batch, as advantages are computed of them.

    Attributes:
        rewards: [R] one reward a response. In double precision: there the mean of equal float32 rewards is that
            reward. Rounded it is not, and a batch without any spread would be whitened into advantages made of
            rounding alone.
        group: [R] index of each response's group, from 0 on.
        lengths: [R] tokens of each response, at least 1.
    """

    rewards: Float64
    group: Int64
    lengths: Int64


ADVANTAGES: Registry[GroupAdvantage, Callable[[Rewarded, Any], Float64]] = Registry("advantage")
"""Settings → (batch, settings) → [R] advantages."""


def group_sum(values: Float64, group: Int64) -> Float64:
    """The sum of each value's group, beside every member."""
    if len(values) == 0:
        return values
    sums: Float64 = np.bincount(group, weights=values).astype(np.float64)
    return sums[group]


def group_size(group: Int64) -> Float64:
    """The number of responses in each one's group, beside every member."""
    return group_sum(np.ones(len(group)), group)


def centred(batch: Rewarded) -> Float64:
    """Rewards less their group's mean."""
    if len(batch.rewards) == 0:
        return batch.rewards
    return batch.rewards - group_sum(batch.rewards, batch.group) / group_size(batch.group)
