"""Typed, frozen containers that the actors exchange: one type per stage of a sample's life.

``PromptBatch`` → ``RolloutBatch`` → ``ScoreBatch`` → ``RewardBatch`` → ``TrainBatch``. Token-level data are ragged numpy arrays
(flat values + offsets): Ray hands numpy arrays out of its object store without a copy, torch tensors not.
Every container is checked when it is built.
"""

from __future__ import annotations

from gad_ray.batch.prompts import Example, Message, PromptBatch, SamplingSettings
from gad_ray.batch.ragged import Float32, Int32, Int64, Ragged
from gad_ray.batch.reward import FormatBatch, RewardBatch, TrainBatch
from gad_ray.batch.rollout import RolloutBatch, RolloutReceipt, StopReason
from gad_ray.batch.scores import Fingerprint, PromptFigures, ScoreBatch, TokenValues
from gad_ray.batch.training import (
    Metrics,
    PublishedCritic,
    TrainStats,
    WeightsReceipt,
    WeightsSnapshot,
    merge_metrics,
)

__all__ = [
    "Example",
    "Fingerprint",
    "Float32",
    "FormatBatch",
    "Int32",
    "Int64",
    "Message",
    "Metrics",
    "PromptBatch",
    "PromptFigures",
    "PublishedCritic",
    "Ragged",
    "RewardBatch",
    "RolloutBatch",
    "RolloutReceipt",
    "SamplingSettings",
    "ScoreBatch",
    "StopReason",
    "TokenValues",
    "TrainBatch",
    "TrainStats",
    "WeightsReceipt",
    "WeightsSnapshot",
    "merge_metrics",
]
