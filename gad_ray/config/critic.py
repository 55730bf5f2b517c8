"""The critic: pooling, discriminator loss, and how it trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gad_ray.config.base import StrictModel
from gad_ray.config.models import GroupConfig, ModelConfig, OptimizerConfig


class MeanPooling(StrictModel):
    """Mean of the per-token values over the response."""

    name: Literal["mean"] = "mean"


class FixedTemperature(StrictModel):
    """A constant temperature τ."""

    name: Literal["fixed"] = "fixed"
    value: float = Field(default=5.0, gt=0.0)
    """τ: the score difference is divided by it before the sigmoid."""


class ScoreReg(StrictModel):
    """Penalty w · mean relu(|s| − c)² on raw scores of both sides."""

    threshold: float = Field(default=3.0, ge=0.0)
    """c: scores up to this size cost nothing."""

    weight: float = Field(default=0.01, ge=0.0)
    """w: weight of the penalty; 0 turns it off."""


class BradleyTerryLoss(StrictModel):
    """softplus(−(d − margin)/τ) on the difference d of teacher's and student's score."""

    name: Literal["bradley_terry"] = "bradley_terry"
    temperature: FixedTemperature = FixedTemperature()
    margin: float = 0.0
    """Difference that the teacher's score should exceed the student's by."""

    score_reg: ScoreReg = ScoreReg()
    batch_norm: bool = False
    """Normalise teacher and student scores together by the batch's mean and standard deviation."""


class CriticConfig(StrictModel):
    """The discriminator: a backbone with a linear value head."""

    model: ModelConfig
    pooling: MeanPooling = MeanPooling()
    loss: BradleyTerryLoss = BradleyTerryLoss()
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-6)
    head_lr: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Learning rate of the new value head; absent: the optimiser's."""

    updates_per_step: int = Field(default=1, ge=1)
    """Optimiser steps on each step's fresh samples."""

    micro_batch_tokens: int = Field(default=16384, ge=1)
    """Tokens, padding included, in one forward pass; gradients accumulate over the passes."""

    max_tokens: int = Field(default=4096, ge=2)
    """Longest prompt plus response, in the critic's tokens; a longer pair is refused by name."""

    group: GroupConfig = GroupConfig()
