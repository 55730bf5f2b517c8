"""Advantages from the order of rewards alone."""

from __future__ import annotations

from typing import Literal

import numpy as np

from gad_ray.core.advantages.base import ADVANTAGES, Float64, GroupAdvantage, Rewarded, group_size


class RankAdvantage(GroupAdvantage):
    """1 for the group's best response, evenly down to −1 for its worst: keeps the order, drops the size."""

    name: Literal["rank"] = "rank"


@ADVANTAGES.register(RankAdvantage)
def rank_advantages(batch: Rewarded, _settings: RankAdvantage) -> Float64:
    """1 − 2·rank/(n − 1) within each group, rank 0 being the highest reward; equal rewards share their mean rank.

    Between 1 and −1, and 0 where all are equal or alone.
    """
    advantages = np.zeros_like(batch.rewards)
    for index in np.unique(batch.group):
        members = np.flatnonzero(batch.group == index)
        own = batch.rewards[members]
        # Those below less those above: (n − 1) − 2·rank, with ties at their mean rank.
        advantages[members] = np.sign(own[:, None] - own[None, :]).sum(-1)
    return advantages / np.maximum(group_size(batch.group) - 1, 1)
