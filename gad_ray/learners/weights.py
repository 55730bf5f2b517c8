"""Policy weights on their way to a rollout engine or an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import Float32
from gad_ray.core.logprobs import token_logprobs
from gad_ray.models.arrays import to_numpy
from gad_ray.models.load import plain_model
from gad_ray.models.policy import PolicyModel, SequenceRow


@torch.no_grad()
def perturbed(weights: Mapping[str, Tensor], size: float) -> dict[str, Tensor]:
    """Every tensor changed by about ``size`` of its own scale, tied ones alike."""
    generator = torch.Generator().manual_seed(0)
    changed: dict[int, Tensor] = {}
    for tensor in weights.values():
        if tensor.data_ptr() not in changed:
            scale = tensor.float().square().mean().sqrt() * size
            noise = torch.randn(tensor.shape, generator=generator).to(tensor.device) * scale
            changed[tensor.data_ptr()] = (tensor.float() + noise).to(tensor.dtype)
    return {name: changed[tensor.data_ptr()] for name, tensor in weights.items()}


def arrays_of(weights: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """The tensors as numpy arrays over the same bytes; tied ones are one array, which is then pickled once."""
    arrays: dict[tuple[int, torch.Size], NDArray[Any]] = {}
    for tensor in weights.values():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in arrays:
            arrays[place] = to_numpy(tensor)
    return {name: arrays[tensor.data_ptr(), tensor.shape] for name, tensor in weights.items()}


class ShadowModel:
    """A model without weights of its own: what given weights say about a text, in their own precision.

    The learner may compute in another precision than the engine, or with adapters beside the weights. The
    probe has to be computed with exactly the tensors that are sent.
    """

    def __init__(self, model: PolicyModel) -> None:
        from accelerate import init_empty_weights

        plain = plain_model(cast(Any, model.lm))
        with init_empty_weights(include_buffers=False):
            self._module = type(plain)(plain.config).eval()
        self._device = model.device
        for buffer in self._module.buffers():
            buffer.data = buffer.data.to(self._device)

    @torch.no_grad()
    def logprobs(self, weights: Mapping[str, Tensor], row: SequenceRow) -> Float32:
        """[response tokens] float32 log-probabilities (nats) of a row's response under ``weights``."""
        ids = torch.from_numpy(row.ids.astype(np.int64))[None].to(self._device)
        arguments = {"input_ids": ids, "use_cache": False}
        logits = torch.func.functional_call(self._module, dict(weights), (), arguments).logits[0]
        chosen, _ = token_logprobs(logits[row.start - 1 : -1], ids[0, row.start :])
        return chosen.cpu().numpy().astype(np.float32)
