"""Losses on pairs of a chosen and a rejected response."""

from gad_ray.core.preference_loss.dpo import DpoStats, dpo_loss

__all__ = ["DpoStats", "dpo_loss"]
