"""From rewards of a group of responses to advantages, one file each."""

from gad_ray.core.advantages.dr_grpo import dr_grpo_advantages
from gad_ray.core.advantages.grpo import grpo_advantages
from gad_ray.core.advantages.opo import opo_advantages
from gad_ray.core.advantages.rank import rank_advantages
from gad_ray.core.advantages.reinforce_pp import reinforce_pp_advantages
from gad_ray.core.advantages.rloo import rloo_advantages

__all__ = [
    "dr_grpo_advantages",
    "grpo_advantages",
    "opo_advantages",
    "rank_advantages",
    "reinforce_pp_advantages",
    "rloo_advantages",
]
