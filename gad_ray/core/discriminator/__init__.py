"""Losses of the critic, one file each, with its settings."""

from gad_ray.core.discriminator.base import DISCRIMINATORS, DiscriminatorSettings, PairScores
from gad_ray.core.discriminator.bradley_terry import BradleyTerryLoss, bradley_terry_loss
from gad_ray.core.discriminator.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from gad_ray.core.discriminator.score_reg import ScoreReg
from gad_ray.core.discriminator.stats import DiscriminatorStats
from gad_ray.core.discriminator.temperature import AdaptiveRange, AdaptiveTemperature, FixedTemperature

__all__ = [
    "DISCRIMINATORS",
    "AdaptiveRange",
    "AdaptiveTemperature",
    "BradleyTerryLoss",
    "CrossEntropyLoss",
    "DiscriminatorSettings",
    "DiscriminatorStats",
    "FixedTemperature",
    "PairScores",
    "ScoreReg",
    "bradley_terry_loss",
    "cross_entropy_loss",
]
