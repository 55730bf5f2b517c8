"""What a response is worth, and what the policy is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch.checks import check
from gad_ray.batch.prompts import SamplingSettings
from gad_ray.batch.ragged import Float32, Int64, Ragged


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatBatch:
    """The format terms of R responses, each asked once a response.

    Attributes:
        total: [R] float32 weighted sum; NaN where a function of the user's failed.
        values: Name of a term → [R] float32 values before the weight; of several terms of one name, their mean.
    """

    total: Float32
    values: Mapping[str, Float32]

    def __post_init__(self) -> None:
        for name, values in self.values.items():
            check(
                values.shape == self.total.shape, f"{name} has {len(values)} values, total {len(self.total)}"
            )

    @classmethod
    def concat(cls, parts: Sequence[FormatBatch]) -> FormatBatch:
        """Join the parts of one step."""
        return cls(
            total=np.concatenate([part.total for part in parts]),
            values={name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardBatch:
    """The rewards of one step: what is logged, recorded and trained on.

    ``total`` and ``format`` are NaN for a response on which a reward function failed: it has no reward, and
    nothing may be trained on it.

    Attributes:
        step: The step.
        total: [R] float32 reward of each response of the matching RolloutBatch, in its order.
        discriminator: [R] float32 part of the critic's score in it.
        format: [R] float32 weighted sum of the format terms.
        terms: Name of a format term → [R] float32 values before the weight.
    """

    step: int
    total: Float32
    discriminator: Float32
    format: Float32
    terms: Mapping[str, Float32] = field(default_factory=dict[str, Float32])

    def __post_init__(self) -> None:
        for name in ("discriminator", "format"):
            check(getattr(self, name).shape == self.total.shape, f"{name} and total differ in shape")
        check(bool(np.all(np.isfinite(self.discriminator))), "a discriminator's reward is not finite")

    def __len__(self) -> int:
        return len(self.total)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """[R] whether the response has a reward."""
        return ~np.isnan(self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """What the policy is trained on: the responses' tokens and their advantages.

    Attributes:
        step: The step.
        prompt_tokens: R rows of int32 token ids of the rendered prompt.
        response_tokens: R rows of int32 token ids as they were sampled.
        logprobs: R rows of float32, the engine's log-probability (nats) of each response token.
        group: [R] int64 index of each response's group, from 0 on; those of one group are adjacent.
        advantages: [R] float32; 0 for responses that are not trained on.
        kept: [R] the responses that are trained on.
        policy_versions: [R] int64 version of the weights that drew each sample.
        sampling: The settings they were drawn with.
        penalty: [R] float32 KL penalty that was taken from the rewards; None where there is none.
        num_alone: Responses left out as the only ones of their group.
        num_no_spread: Responses left out with a group whose rewards do not differ.
        num_surplus: Responses left out with a group for which the batch had no place left.
    """

    step: int
    prompt_tokens: Ragged
    response_tokens: Ragged
    logprobs: Ragged
    group: Int64
    advantages: Float32
    kept: NDArray[np.bool_]
    policy_versions: Int64
    sampling: SamplingSettings
    penalty: Float32 | None = None
    num_alone: int = 0
    num_no_spread: int = 0
    num_surplus: int = 0

    def __post_init__(self) -> None:
        n = len(self.advantages)
        for name in ("prompt_tokens", "response_tokens", "logprobs", "group", "kept", "policy_versions"):
            check(
                len(getattr(self, name)) == n, f"{name} has {len(getattr(self, name))} rows, advantages {n}"
            )
        check(bool(np.all(np.isfinite(self.advantages))), "an advantage is not finite")
        check(bool(np.all(np.diff(self.group) >= 0)), "responses of one group must be adjacent")

    def __len__(self) -> int:
        return len(self.advantages)
