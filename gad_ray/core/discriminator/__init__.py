"""Losses of the critic, one file each."""

from gad_ray.core.discriminator.bradley_terry import bradley_terry_loss
from gad_ray.core.discriminator.cross_entropy import cross_entropy_loss
from gad_ray.core.discriminator.stats import DiscriminatorStats
from gad_ray.core.discriminator.temperature import AdaptiveRange

__all__ = ["AdaptiveRange", "DiscriminatorStats", "bradley_terry_loss", "cross_entropy_loss"]
