"""What the policy's losses share: their settings, what they are computed of, the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, assert_never

from pydantic import Field, model_validator

from gad_ray.core.policy_loss.aggregation import Aggregate, constant_divisor, sequence_mean, token_mean
from gad_ray.registry import Registry
from gad_ray.strict_model import Variant

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from gad_ray.core.policy_loss.stats import PolicyLossStats


class PolicyLoss(Variant):
    """The settings of a policy loss."""

    @property
    def corrects_for_moves(self) -> bool:
        """Whether it is right for samples of a policy that has moved since they were drawn."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBatch:
    """A micro-batch as a policy loss is computed of it.

    Attributes:
        old_logprobs: log π_old of the response tokens (nats), detached.
        advantages: One advantage a response, shared by its tokens.
        mask: True on response tokens; at least one in every row.
        weights: Importance weights of the tokens, detached; None: 1.
        num_sequences: Responses of the mini-batch over all ranks that this is a part of: the denominator of every mean
            over responses.
        num_tokens: The same of its response tokens.
    """

    old_logprobs: Float[Tensor, "batch seq"]
    advantages: Float[Tensor, " batch"]
    mask: Bool[Tensor, "batch seq"]
    weights: Float[Tensor, "batch seq"] | None
    num_sequences: int
    num_tokens: int

    @property
    def shared(self) -> dict[str, Any]:
        """What every loss takes, by name."""
        return {
            "old_logprobs": self.old_logprobs,
            "advantages": self.advantages,
            "mask": self.mask,
            "weights": self.weights,
        }


class TokenLoss(PolicyLoss):
    """What the losses per token share."""

    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """How token losses become one number, always over the global batch: the mean over all tokens, the mean
    over responses of each one's token mean, or the sum divided by responses × ``length_divisor``."""

    length_divisor: int | None = Field(default=None, ge=1)
    """With ``constant``, and only then: what stands for every response's length, in tokens; such as
    ``rollout.max_response_tokens``."""

    @model_validator(mode="after")
    def _divisor_goes_with_constant(self) -> Self:
        if self.aggregation == "constant" and self.length_divisor is None:
            raise ValueError("aggregation 'constant' needs length_divisor, in tokens")
        if self.aggregation != "constant" and self.length_divisor is not None:
            raise ValueError(
                f"length_divisor = {self.length_divisor} belongs to aggregation 'constant', "
                f"not to '{self.aggregation}'"
            )
        return self

    def aggregate(self, batch: LossBatch) -> Aggregate:
        """How the losses of a batch's tokens become one number."""
        match self.aggregation:
            case "sequence_mean":
                return sequence_mean(batch.num_sequences)
            case "constant":
                assert self.length_divisor is not None  # seen to when it was validated
                return constant_divisor(batch.num_sequences, self.length_divisor)
            case "token_mean":
                return token_mean(batch.num_tokens)
            case _:
                assert_never(self.aggregation)


Loss = Callable[[Any, LossBatch, Any], "tuple[Tensor, PolicyLossStats]"]

POLICY_LOSSES: Registry[PolicyLoss, Loss] = Registry("policy loss")
"""Settings → ([batch, seq] log π with gradient, batch, settings) → (the batch's share of the loss, its figures)."""
