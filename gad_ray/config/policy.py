"""The policy (the student): advantages, loss, KL, and how it trains."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gad_ray.config.backend import BackendConfig, LocalBackendSettings
from gad_ray.config.base import SizeChoice, settled
from gad_ray.config.models import GroupConfig, ModelConfig, OptimizerConfig
from gad_ray.core.advantages import AdvantageConfig, GrpoAdvantage
from gad_ray.core.policy_loss import PolicyLossConfig, PpoLoss
from gad_ray.strict_model import StrictModel, unnamed_means


class AdaptiveKl(StrictModel):
    """Moves the KL coefficient so that the measured KL goes to a target (Ziegler et al., 1909.08593)."""

    target: float = Field(gt=0.0)
    """KL to hold, nats a token, as the chosen estimator measures it."""

    horizon: int = Field(default=10000, ge=1)
    """Responses in which the coefficient may grow by a fifth, at most, or shrink by one."""


class KlConfig(StrictModel):
    """Penalty for leaving the reference: the policy as it was when the adversarial stage began.

    Both distributions are those at ``rollout.temperature``, from which the responses come.
    """

    estimator: Literal["k1", "k2", "k3"] = "k3"
    """With δ = log π_ref − log π. k1: −δ; k2: δ²/2; k3: e^δ − δ − 1, of δ up to 20. In the loss, the gradient of k2 is that
    of KL(π‖π_ref) and the gradient of k3 that of KL(π_ref‖π), for fresh samples; that of k1 has mean 0: noise
    that holds nothing back. In the reward, k1 is the unbiased choice."""

    place: Literal["loss", "reward"] = "loss"
    """``loss``: the mean over tokens times the coefficient is added to the loss. ``reward``: the sum over a
    response's tokens times the coefficient is taken from its reward, before the advantages."""

    coefficient: float = Field(default=0.001, ge=0.0)
    """Weight; 0 keeps no reference and spends no pass on it. With ``adaptive``, where it starts."""

    adaptive: AdaptiveKl | None = None
    """Absent: the coefficient stays as it is."""

    refresh_every: int | None = Field(default=None, ge=1)
    """Steps of the adversarial stage after which the reference becomes the policy as it then is; absent: never."""

    @property
    def in_loss(self) -> bool:
        """Whether the penalty is a term of the loss."""
        return self.coefficient > 0.0 and self.place == "loss"

    @property
    def in_reward(self) -> bool:
        """Whether the penalty is taken from the rewards."""
        return self.coefficient > 0.0 and self.place == "reward"

    @model_validator(mode="after")
    def _adaptive_starts_somewhere(self) -> Self:
        if self.adaptive is not None and self.coefficient == 0.0:
            raise ValueError("adaptive scales the coefficient, which is 0: give where it starts")
        return self


class TruncatedImportance(StrictModel):
    """Correction for the gap between the rollout engine's and the trainer's log-probabilities."""

    name: Literal["truncated"] = "truncated"
    cap: float = Field(default=2.0, ge=1.0)
    """Truncation C of the weight min(π_old / π_rollout, C) on every token."""


class RejectedImportance(StrictModel):
    """The same weight, but what exceeds the cap is left out of the gradient; the denominators stay."""

    name: Literal["rejection"] = "rejection"
    cap: float = Field(default=2.0, ge=1.0)
    """Largest weight that is kept."""

    unit: Literal["token", "sequence"] = "token"
    """What is weighed and rejected: a token by its π_old / π_rollout, or a response by the geometric mean of
    its tokens'."""


ImportanceConfig = Annotated[
    TruncatedImportance | RejectedImportance, Field(discriminator="name"), unnamed_means("truncated")
]


class PolicyConfig(StrictModel):
    """The student: a causal language model trained by policy gradient on the critic's score."""

    model: ModelConfig
    advantage: AdvantageConfig = GrpoAdvantage()
    loss: PolicyLossConfig = PpoLoss()
    kl: KlConfig = KlConfig()
    entropy_coefficient: float = Field(default=0.0, ge=0.0)
    """Weight of the mean entropy per token, which is taken from the loss; 0 spends no gradient on it."""

    importance: ImportanceConfig | None = None
    """Absent: the trainer's own log-probabilities are taken as those of a fresh sample, the engine's as those of a
    stale one."""

    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-6)
    mini_batch_prompts: int | None = Field(default=None, ge=1)
    """Prompts per optimiser step; absent: the whole step's. Must divide ``prompts_per_step``."""

    epochs_per_step: int = Field(default=1, ge=1)
    """Passes over each step's samples."""

    micro_batch_tokens: SizeChoice = "auto"
    """Tokens that one forward pass computes; gradients accumulate over the passes. ``auto``: on a CPU the fewest that it
    computes as fast as more, by measurement, on a GPU as many as it has memory for, up to 16,384."""

    packing: bool = True
    """Put the rows of a forward pass end to end, none seeing another and a prompt that several share computed once, in
    place of padding each. A model that cannot (layers with a window, an attention of its own) is padded."""

    backend: BackendConfig = LocalBackendSettings()
    group: GroupConfig = GroupConfig()

    @property
    def pass_tokens(self) -> int:
        """``micro_batch_tokens``, once it is settled.

        Raises:
            ConfigError: If it is ``auto`` still.
        """
        return settled(self.micro_batch_tokens, key="policy.micro_batch_tokens")
