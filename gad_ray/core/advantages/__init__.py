"""From rewards of a group of responses to advantages: one file each, with its settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import SerializeAsAny, Tag

from gad_ray.core.advantages.base import ADVANTAGES, GroupAdvantage, RefillConfig, Rewarded
from gad_ray.core.advantages.dr_grpo import DrGrpoAdvantage, dr_grpo_advantages
from gad_ray.core.advantages.grpo import GrpoAdvantage, grpo_advantages
from gad_ray.core.advantages.opo import OpoAdvantage, opo_advantages
from gad_ray.core.advantages.rank import RankAdvantage, rank_advantages
from gad_ray.core.advantages.reinforce_pp import ReinforcePpAdvantage, reinforce_pp_advantages
from gad_ray.core.advantages.rloo import RlooAdvantage, rloo_advantages
from gad_ray.registry import BY_NAME, IMPORTED, imported
from gad_ray.strict_model import unnamed_means

__all__ = [
    "ADVANTAGES",
    "AdvantageConfig",
    "DrGrpoAdvantage",
    "GroupAdvantage",
    "GrpoAdvantage",
    "OpoAdvantage",
    "RankAdvantage",
    "RefillConfig",
    "ReinforcePpAdvantage",
    "Rewarded",
    "RlooAdvantage",
    "dr_grpo_advantages",
    "grpo_advantages",
    "opo_advantages",
    "rank_advantages",
    "reinforce_pp_advantages",
    "rloo_advantages",
]

AdvantageConfig = Annotated[
    Annotated[GrpoAdvantage, Tag("grpo")]
    | Annotated[DrGrpoAdvantage, Tag("dr_grpo")]
    | Annotated[RlooAdvantage, Tag("rloo")]
    | Annotated[RankAdvantage, Tag("rank")]
    | Annotated[ReinforcePpAdvantage, Tag("reinforce_pp")]
    | Annotated[OpoAdvantage, Tag("opo")]
    | Annotated[SerializeAsAny[GroupAdvantage], imported(GroupAdvantage), IMPORTED],
    BY_NAME,
    unnamed_means("grpo"),
]
"""Which advantage; one of your own by ``name: module:Class`` (docs/extending/advantage.md)."""
