"""What comes of an update: new weights, and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch.checks import check
from gad_ray.batch.ragged import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSnapshot:
    """Policy weights of one version, as they cross the object store.

    ``tensors`` maps Hugging Face parameter names to numpy arrays. bfloat16 has no numpy type: such
    tensors travel as uint16 with ``dtype == "bfloat16"`` and are viewed back by the reader.

    Attributes:
        version: The policy version these weights are.
        dtype: ``float32`` or ``bfloat16``: of the weights that the engine takes.
        tensors: Parameter name → array. Tied output heads are included under their own name; they are the same array,
            which travels once. Of adapters, the float32 arrays A and B of each layer: ``….lora_A``, ``….lora_B``.
        adapter_scale: None where the tensors are whole weights. Else they are adapters alone: scale · B A is what they
            add to the weights that the model came with.
        probe_ids: [T] int32 token ids of the probe, a fixed prompt and response: rendered once, by the learner.
        probe_start: Where its response begins.
        probe_logprobs: [P] float32 log-probabilities (nats) that the learner gives to the tokens of the probe's
            response with these weights.
    """

    version: int
    dtype: str
    tensors: Mapping[str, NDArray[Any]]
    adapter_scale: float | None = None
    probe_ids: NDArray[np.int32]
    probe_start: int
    probe_logprobs: Float32

    @property
    def num_bytes(self) -> int:
        """Bytes that travel: of all tensors, tied ones once."""
        return sum(array.nbytes for array in {id(array): array for array in self.tensors.values()}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReceipt:
    """What the controller is told of a WeightsSnapshot that stays in the object store.

    Attributes:
        version: The policy version.
        num_bytes: Size of its tensors.
    """

    version: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCritic:
    """A critic that lies in the object store.

    Attributes:
        fingerprint: Of the critic.
        step: Optimiser steps that it has taken.
        seconds: Time that it took to check, fingerprint and put it.
        num_bytes: Its size.
        state: Reference of its :class:`gad_ray.models.critic_state.CriticState`; None where the news of it goes alone.
    """

    fingerprint: str
    step: int
    seconds: float
    num_bytes: int
    state: Any


Metrics = dict[str, float]
"""Metric name → value, named as in the metric reference; one step's values."""


def merge_metrics(*parts: Mapping[str, float]) -> Metrics:
    """Join metric maps that must not overlap.

    Raises:
        ValueError: If two parts name the same metric: two things must never be logged under one name.
    """
    merged: Metrics = {}
    for part in parts:
        for name, value in part.items():
            check(name not in merged, f"metric {name} is given twice")
            merged[name] = float(value)
    return merged


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStats:
    """What one update of a learner did: its metrics, and whether steps were skipped as non-finite."""

    metrics: Mapping[str, float]
    num_steps: int
    num_skipped: int = 0
    seconds: float = 0.0
