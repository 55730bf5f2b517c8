"""The policy (the student): advantages, loss, KL, and how it trains."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gad_ray.config.base import StrictModel
from gad_ray.config.models import GroupConfig, ModelConfig, OptimizerConfig


class GrpoAdvantage(StrictModel):
    """(r − mean) / max(std, floor) within each group of responses to one prompt."""

    name: Literal["grpo"] = "grpo"
    std_floor: float = Field(default=0.1, gt=0.0)
    """Smallest divisor: groups with hardly any spread are not blown up."""

    clip: float | None = Field(default=5.0, gt=0.0)
    """Advantages are clamped to ± this."""


class PpoLoss(StrictModel):
    """Clipped ratio objective per token."""

    name: Literal["ppo"] = "ppo"
    clip_low: float = Field(default=0.2, gt=0.0, lt=1.0)
    clip_high: float = Field(default=0.2, gt=0.0)
    aggregation: Literal["token_mean"] = "token_mean"
    """How token losses become one number, always over the global batch."""


class GspoLoss(StrictModel):
    """Clipped sequence-level ratio exp(mean log ρ); one value per sequence."""

    name: Literal["gspo"] = "gspo"
    clip_low: float = Field(default=3e-4, gt=0.0, lt=1.0)
    clip_high: float = Field(default=4e-4, gt=0.0)


class KlConfig(StrictModel):
    """Penalty for leaving the reference: the policy as it was when the adversarial stage began."""

    estimator: Literal["k3"] = "k3"
    """k3: e^δ − δ − 1 with δ = log π_ref − log π."""

    coefficient: float = Field(default=0.001, ge=0.0)
    """Weight in the loss; 0 keeps no reference and spends no pass on it."""


class ImportanceConfig(StrictModel):
    """Correction for the gap between the rollout engine's and the trainer's log-probabilities."""

    cap: float = Field(default=2.0, ge=1.0)
    """Truncation C of the weight min(π_old / π_rollout, C) on every token."""


class PolicyConfig(StrictModel):
    """The student: a causal language model trained by policy gradient on the critic's score."""

    model: ModelConfig
    advantage: GrpoAdvantage = GrpoAdvantage()
    loss: PpoLoss | GspoLoss = Field(default=PpoLoss(), discriminator="name")
    kl: KlConfig = KlConfig()
    importance: ImportanceConfig | None = None
    """Absent: the trainer's own log-probabilities are taken as those of the sample."""

    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-6)
    mini_batch_prompts: int | None = Field(default=None, ge=1)
    """Prompts per optimiser step; absent: the whole step's. Must divide ``prompts_per_step``."""

    epochs_per_step: int = Field(default=1, ge=1)
    """Passes over each step's samples."""

    micro_batch_tokens: int = Field(default=16384, ge=1)
    """Tokens, padding included, in one forward pass; gradients accumulate over the passes."""

    group: GroupConfig = GroupConfig()


class FormatReward(StrictModel):
    """Share of distinct n-grams among all n-grams of the response, minus one: 0 when none repeats."""

    name: Literal["no_repetition"] = "no_repetition"
    ngram: int = Field(default=4, ge=1)
    """Length n of the word n-grams."""

    weight: float = Field(default=1.0, ge=0.0)
    """Weight in the reward."""


class RewardConfig(StrictModel):
    """r = discriminator_weight · D(x, y) + Σ weight_i · f_i(y)."""

    discriminator_weight: float = Field(default=1.0, ge=0.0)
    format: tuple[FormatReward, ...] = ()

    @model_validator(mode="after")
    def _something_is_rewarded(self) -> Self:
        if self.discriminator_weight == 0.0 and not any(f.weight > 0 for f in self.format):
            raise ValueError("discriminator_weight is 0 and no format reward has weight: nothing is rewarded")
        return self
