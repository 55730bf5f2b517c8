"""Configuration: strict, frozen models; YAML files, packaged recipes and ``key=value`` overrides."""

from gad_ray.config.base import Precision, StrictModel
from gad_ray.config.critic import BradleyTerryLoss, CriticConfig, MeanPooling, ScoreReg
from gad_ray.config.data import DataConfig
from gad_ray.config.load import config_hash, load_config, to_yaml
from gad_ray.config.models import GroupConfig, LoraConfig, ModelConfig, OptimizerConfig
from gad_ray.config.policy import (
    FormatReward,
    GrpoAdvantage,
    GspoLoss,
    ImportanceConfig,
    KlConfig,
    PolicyConfig,
    PpoLoss,
    RewardConfig,
)
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.run import LimitsConfig, RunConfig

__all__ = [
    "BradleyTerryLoss",
    "CriticConfig",
    "DataConfig",
    "FormatReward",
    "GroupConfig",
    "GrpoAdvantage",
    "GspoLoss",
    "ImportanceConfig",
    "KlConfig",
    "LimitsConfig",
    "LoraConfig",
    "MeanPooling",
    "ModelConfig",
    "OptimizerConfig",
    "PolicyConfig",
    "PpoLoss",
    "Precision",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "ScoreReg",
    "StrictModel",
    "config_hash",
    "load_config",
    "to_yaml",
]
