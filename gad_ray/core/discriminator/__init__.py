"""Losses of the critic, one file each."""

from gad_ray.core.discriminator.bradley_terry import BradleyTerryStats, bradley_terry_loss

__all__ = ["BradleyTerryStats", "bradley_terry_loss"]
