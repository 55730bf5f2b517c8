"""Leave-one-out advantages (RLOO, arXiv 2402.14740)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from gad_ray.core.advantages.base import ADVANTAGES, Float64, GroupAdvantage, Rewarded, centred, group_size


class RlooAdvantage(GroupAdvantage):
    """r minus the mean of the group's other rewards."""

    name: Literal["rloo"] = "rloo"


@ADVANTAGES.register(RlooAdvantage)
def rloo_advantages(batch: Rewarded, _settings: RlooAdvantage) -> Float64:
    """r minus the mean of the group's other rewards, which is n/(n − 1) · (r − mean).

    A group of one has no others: its advantage is 0.
    """
    size = group_size(batch.group)
    return centred(batch) * size / np.maximum(size - 1, 1)
