"""Whole weights out of a base that stays and low-rank adapters that come anew with every update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import WeightsSnapshot
from gad_ray.models.arrays import from_numpy, to_numpy
from gad_ray.models.load import TORCH_DTYPES
from gad_ray.models.lora import LORA_DOWN, LORA_UP, LoraWeights


class MergedWeights(Mapping[str, "NDArray[Any]"]):
    """A snapshot's tensors as if it had come whole: each is made when it is asked for, as the learner makes it.

    Args:
        base: Weights that the adapters were put on, in the learner's precision.
        snapshot: The adapters.
        scale: Of all of them.
    """

    def __init__(self, base: Mapping[str, Tensor], snapshot: WeightsSnapshot, *, scale: float) -> None:
        self._base = base
        self._dtype = TORCH_DTYPES[snapshot.dtype]
        sent = {name: from_numpy(array, dtype="float32") for name, array in snapshot.tensors.items()}
        down, up = (
            {name.removesuffix(end): tensor for name, tensor in sent.items() if name.endswith(end)}
            for end in (LORA_DOWN, LORA_UP)
        )
        self._adapters = LoraWeights(down, up, scale=scale)

    @torch.no_grad()
    def __getitem__(self, name: str) -> NDArray[Any]:
        weight = self._adapters.merged(name.removesuffix(".weight"), self._base[name])
        return to_numpy(weight.to(self._dtype))

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)
