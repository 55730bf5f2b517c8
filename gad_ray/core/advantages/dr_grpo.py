"""Group-relative advantages without division (Dr. GRPO, arXiv 2503.20783)."""

from __future__ import annotations

from typing import Literal

from gad_ray.core.advantages.base import ADVANTAGES, Float64, GroupAdvantage, Rewarded, centred


class DrGrpoAdvantage(GroupAdvantage):
    """r − mean within each group, not divided; meant for ``aggregation: constant``."""

    name: Literal["dr_grpo"] = "dr_grpo"


@ADVANTAGES.register(DrGrpoAdvantage)
def dr_grpo_advantages(batch: Rewarded, _settings: DrGrpoAdvantage) -> Float64:
    """r − mean within each group.

    Dividing by the standard deviation favours prompts whose rewards hardly differ, and dividing a response's
    loss by its length favours long wrong ones; this goes with a constant divisor in place of the length.
    """
    return centred(batch)
