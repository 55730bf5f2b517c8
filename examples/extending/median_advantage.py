"""An advantage of one's own: r − the median of its group. See docs/extending/advantage.md."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from gad_ray.core.advantages import ADVANTAGES, GroupAdvantage, Rewarded
from gad_ray.core.advantages.base import Float64


class MedianAdvantage(GroupAdvantage):
    """r − median within each group, divided by ``scale``: one odd reward does not move the baseline."""

    name: str = "examples.extending.median_advantage:MedianAdvantage"
    scale: float = Field(default=1.0, gt=0.0)
    """Divisor of all advantages."""


@ADVANTAGES.register(MedianAdvantage)
def median_advantages(batch: Rewarded, settings: MedianAdvantage) -> Float64:
    """r − median within each group, divided by ``scale``."""
    advantages = np.zeros_like(batch.rewards)
    for group in np.unique(batch.group):
        members = batch.group == group
        advantages[members] = batch.rewards[members] - np.median(batch.rewards[members])
    return advantages / settings.scale
