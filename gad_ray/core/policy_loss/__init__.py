"""Policy-gradient objectives, one file each, with its settings."""

from gad_ray.core.policy_loss.aggregation import Aggregate, constant_divisor, sequence_mean, token_mean
from gad_ray.core.policy_loss.base import POLICY_LOSSES, LossBatch, PolicyLoss, TokenLoss
from gad_ray.core.policy_loss.cispo import CispoLoss, cispo_loss
from gad_ray.core.policy_loss.gspo import GspoLoss, gspo_loss
from gad_ray.core.policy_loss.ppo import PpoLoss, ppo_loss
from gad_ray.core.policy_loss.reinforce import ReinforceLoss, reinforce_loss
from gad_ray.core.policy_loss.stats import PolicyLossStats

__all__ = [
    "POLICY_LOSSES",
    "Aggregate",
    "CispoLoss",
    "GspoLoss",
    "LossBatch",
    "PolicyLoss",
    "PolicyLossStats",
    "PpoLoss",
    "ReinforceLoss",
    "TokenLoss",
    "cispo_loss",
    "constant_divisor",
    "gspo_loss",
    "ppo_loss",
    "reinforce_loss",
    "sequence_mean",
    "token_mean",
]
