"""Advantages against the length-weighted baseline (OPO, arXiv 2505.23585)."""

from __future__ import annotations

from typing import Literal

from gad_ray.core.advantages.base import ADVANTAGES, Float64, GroupAdvantage, Rewarded, group_sum


class OpoAdvantage(GroupAdvantage):
    """r minus the group's mean reward weighted by response length (tokens)."""

    name: Literal["opo"] = "opo"


@ADVANTAGES.register(OpoAdvantage)
def opo_advantages(batch: Rewarded, _settings: OpoAdvantage) -> Float64:
    """r − Σ len·r / Σ len within each group: the baseline of least variance if a gradient grows with length."""
    weights = batch.lengths.astype(batch.rewards.dtype)
    baseline = group_sum(weights * batch.rewards, batch.group) / group_sum(weights, batch.group)
    return batch.rewards - baseline
