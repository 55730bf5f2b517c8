"""Advantages whitened over the whole batch (REINFORCE++ with a group baseline, arXiv 2501.03262)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from gad_ray.core.advantages.base import ADVANTAGES, Float64, GroupAdvantage, Rewarded, centred


class ReinforcePpAdvantage(GroupAdvantage):
    """r − mean within each group, then brought to mean 0 and standard deviation 1 over the whole batch."""

    name: Literal["reinforce_pp"] = "reinforce_pp"
    std_floor: float = Field(default=1e-6, gt=0.0)
    """Smallest divisor, for a batch in which nothing differs."""


@ADVANTAGES.register(ReinforcePpAdvantage)
def reinforce_pp_advantages(batch: Rewarded, settings: ReinforcePpAdvantage) -> Float64:
    """r − mean within each group, then less the batch's mean and divided by max(its std, floor).

    The standard deviation is the sample's (n − 1), over the responses of the whole batch.
    """
    values = centred(batch)
    if len(values) < 2:
        return values - values
    values = values - values.mean()
    std = float(np.linalg.norm(values)) / math.sqrt(len(values) - 1)
    return values / max(std, settings.std_floor)
