"""Group-relative advantages (GRPO, arXiv 2402.03300)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from gad_ray.core.advantages.base import (
    ADVANTAGES,
    Float64,
    GroupAdvantage,
    Rewarded,
    centred,
    group_size,
    group_sum,
)


class GrpoAdvantage(GroupAdvantage):
    """(r − mean) / max(std, floor) within each group of responses to one prompt."""

    name: Literal["grpo"] = "grpo"
    std_floor: float = Field(default=0.1, gt=0.0)
    """Smallest divisor: groups with hardly any spread are not blown up."""

    clip: float | None = Field(default=5.0, gt=0.0)
    """Advantages are clamped to ± this."""


@ADVANTAGES.register(GrpoAdvantage)
def grpo_advantages(batch: Rewarded, settings: GrpoAdvantage) -> Float64:
    """(r − mean) / max(std, floor) within each group, clamped to ± ``clip``.

    The standard deviation is the sample's (n − 1), as in the paper's implementation. A group of one has
    no spread: its advantage is 0.
    """
    values = centred(batch)
    if len(values) == 0:
        return values
    std = np.sqrt(group_sum(np.square(values), batch.group) / np.maximum(group_size(batch.group) - 1, 1))
    advantages = values / np.maximum(std, settings.std_floor)
    return advantages if settings.clip is None else np.clip(advantages, -settings.clip, settings.clip)
