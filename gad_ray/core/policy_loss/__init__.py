"""Policy-gradient objectives, one file each, with its settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import SerializeAsAny, Tag

from gad_ray.core.policy_loss.aggregation import Aggregate, constant_divisor, sequence_mean, token_mean
from gad_ray.core.policy_loss.base import POLICY_LOSSES, LossBatch, PolicyLoss, TokenLoss
from gad_ray.core.policy_loss.cispo import CispoLoss, cispo_loss
from gad_ray.core.policy_loss.gspo import GspoLoss, gspo_loss
from gad_ray.core.policy_loss.ppo import PpoLoss, ppo_loss
from gad_ray.core.policy_loss.reinforce import ReinforceLoss, reinforce_loss
from gad_ray.core.policy_loss.stats import PolicyLossStats
from gad_ray.registry import BY_NAME, IMPORTED, imported
from gad_ray.strict_model import unnamed_means

__all__ = [
    "POLICY_LOSSES",
    "Aggregate",
    "CispoLoss",
    "GspoLoss",
    "LossBatch",
    "PolicyLoss",
    "PolicyLossConfig",
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

PolicyLossConfig = Annotated[
    Annotated[PpoLoss, Tag("ppo")]
    | Annotated[GspoLoss, Tag("gspo")]
    | Annotated[CispoLoss, Tag("cispo")]
    | Annotated[ReinforceLoss, Tag("reinforce")]
    | Annotated[SerializeAsAny[PolicyLoss], imported(PolicyLoss), IMPORTED],
    BY_NAME,
    unnamed_means("ppo"),
]
"""Which policy-gradient loss; one of your own by ``name: module:Class`` (docs/extending/loss.md)."""
