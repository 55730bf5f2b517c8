"""From rewards of a group of responses to advantages: one file each, with its settings."""

from gad_ray.core.advantages.base import ADVANTAGES, GroupAdvantage, RefillConfig, Rewarded
from gad_ray.core.advantages.dr_grpo import DrGrpoAdvantage, dr_grpo_advantages
from gad_ray.core.advantages.grpo import GrpoAdvantage, grpo_advantages
from gad_ray.core.advantages.opo import OpoAdvantage, opo_advantages
from gad_ray.core.advantages.rank import RankAdvantage, rank_advantages
from gad_ray.core.advantages.reinforce_pp import ReinforcePpAdvantage, reinforce_pp_advantages
from gad_ray.core.advantages.rloo import RlooAdvantage, rloo_advantages

__all__ = [
    "ADVANTAGES",
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
