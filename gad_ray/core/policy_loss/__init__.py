"""Policy-gradient objectives, one file each."""

from gad_ray.core.policy_loss.aggregation import Aggregate, constant_divisor, sequence_mean, token_mean
from gad_ray.core.policy_loss.cispo import cispo_loss
from gad_ray.core.policy_loss.gspo import gspo_loss
from gad_ray.core.policy_loss.ppo import ppo_loss
from gad_ray.core.policy_loss.reinforce import reinforce_loss
from gad_ray.core.policy_loss.stats import PolicyLossStats

__all__ = [
    "Aggregate",
    "PolicyLossStats",
    "cispo_loss",
    "constant_divisor",
    "gspo_loss",
    "ppo_loss",
    "reinforce_loss",
    "sequence_mean",
    "token_mean",
]
