"""Configuration: strict, frozen models; YAML files, packaged recipes and ``key=value`` overrides."""

from gad_ray.config.base import Precision, PrecisionChoice
from gad_ray.config.critic import CriticConfig
from gad_ray.config.curriculum import (
    CurriculumConfig,
    DifficultyCurriculum,
    GapCurriculum,
    SpreadCurriculum,
)
from gad_ray.config.data import DataConfig
from gad_ray.config.fit import FitConfig, FitMethod, SeqKdFit, SodaFit
from gad_ray.config.health import HealthConfig
from gad_ray.config.length import StageLength
from gad_ray.config.load import config_hash, fit_hash, load_config, to_yaml
from gad_ray.config.models import GroupConfig, LoraConfig, ModelConfig, OptimizerConfig
from gad_ray.config.policy import AdaptiveKl, KlConfig, PolicyConfig, RejectedImportance, TruncatedImportance
from gad_ray.config.reward import (
    CustomTerm,
    LeakedControl,
    LengthWindow,
    NoRepetition,
    ParsedJson,
    RequiredPattern,
    RewardConfig,
    SameLanguage,
)
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.run import LimitsConfig, RunConfig
from gad_ray.config.serve import ServeConfig
from gad_ray.core.advantages import (
    DrGrpoAdvantage,
    GrpoAdvantage,
    OpoAdvantage,
    RankAdvantage,
    RefillConfig,
    ReinforcePpAdvantage,
    RlooAdvantage,
)
from gad_ray.core.discriminator import BradleyTerryLoss, ScoreReg
from gad_ray.core.policy_loss import CispoLoss, GspoLoss, PpoLoss, ReinforceLoss
from gad_ray.core.pooling import MeanPooling
from gad_ray.strict_model import StrictModel

__all__ = [
    "AdaptiveKl",
    "BradleyTerryLoss",
    "CispoLoss",
    "CriticConfig",
    "CurriculumConfig",
    "CustomTerm",
    "DataConfig",
    "DifficultyCurriculum",
    "DrGrpoAdvantage",
    "FitConfig",
    "FitMethod",
    "GapCurriculum",
    "GroupConfig",
    "GrpoAdvantage",
    "GspoLoss",
    "HealthConfig",
    "KlConfig",
    "LeakedControl",
    "LengthWindow",
    "LimitsConfig",
    "LoraConfig",
    "MeanPooling",
    "ModelConfig",
    "NoRepetition",
    "OpoAdvantage",
    "OptimizerConfig",
    "ParsedJson",
    "PolicyConfig",
    "PpoLoss",
    "Precision",
    "PrecisionChoice",
    "RankAdvantage",
    "RefillConfig",
    "ReinforceLoss",
    "ReinforcePpAdvantage",
    "RejectedImportance",
    "RequiredPattern",
    "RewardConfig",
    "RlooAdvantage",
    "RolloutConfig",
    "RunConfig",
    "SameLanguage",
    "ScoreReg",
    "SeqKdFit",
    "ServeConfig",
    "SodaFit",
    "SpreadCurriculum",
    "StageLength",
    "StrictModel",
    "TruncatedImportance",
    "config_hash",
    "fit_hash",
    "load_config",
    "to_yaml",
]
