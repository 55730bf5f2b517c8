"""Policy-gradient objectives, one file each."""

from gad_ray.core.policy_loss.gspo import gspo_loss
from gad_ray.core.policy_loss.ppo import ppo_loss
from gad_ray.core.policy_loss.stats import PolicyLossStats

__all__ = ["PolicyLossStats", "gspo_loss", "ppo_loss"]
