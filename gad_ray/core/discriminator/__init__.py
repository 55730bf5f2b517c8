"""Losses of the critic, one file each, with its settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import SerializeAsAny, Tag

from gad_ray.core.discriminator.base import DISCRIMINATORS, DiscriminatorSettings, PairScores
from gad_ray.core.discriminator.bradley_terry import BradleyTerryLoss, bradley_terry_loss
from gad_ray.core.discriminator.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from gad_ray.core.discriminator.score_reg import ScoreReg
from gad_ray.core.discriminator.stats import DiscriminatorStats
from gad_ray.core.discriminator.temperature import AdaptiveRange, AdaptiveTemperature, FixedTemperature
from gad_ray.registry import BY_NAME, IMPORTED, imported
from gad_ray.strict_model import unnamed_means

__all__ = [
    "DISCRIMINATORS",
    "AdaptiveRange",
    "AdaptiveTemperature",
    "BradleyTerryLoss",
    "CrossEntropyLoss",
    "DiscriminatorLoss",
    "DiscriminatorSettings",
    "DiscriminatorStats",
    "FixedTemperature",
    "PairScores",
    "ScoreReg",
    "bradley_terry_loss",
    "cross_entropy_loss",
]

DiscriminatorLoss = Annotated[
    Annotated[BradleyTerryLoss, Tag("bradley_terry")]
    | Annotated[CrossEntropyLoss, Tag("cross_entropy")]
    | Annotated[SerializeAsAny[DiscriminatorSettings], imported(DiscriminatorSettings), IMPORTED],
    BY_NAME,
    unnamed_means("bradley_terry"),
]
"""What the critic minimises; a loss of your own by ``name: module:Class`` (docs/extending/loss.md)."""
