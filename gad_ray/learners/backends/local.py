"""Every rank holds the whole model and all of its optimiser; gradients are added up over the ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from gad_ray.config.backend import LocalBackendSettings
from gad_ray.learners.backends.base import BACKENDS, BackendContext
from gad_ray.learners.optim import MasterOptimizer, ParameterGroup, StepResult
from gad_ray.models.load import merged_weights
from gad_ray.models.lora import LoraWeights


@BACKENDS.register(LocalBackendSettings)
class LocalBackend:
    """See :class:`gad_ray.learners.backends.base.Backend`."""

    def __init__(self, settings: LocalBackendSettings, context: BackendContext) -> None:
        del settings  # it has none
        self._context = context
        self._groups: list[ParameterGroup] = []
        self._optimizer: MasterOptimizer | None = None

    @property
    def optimizer(self) -> MasterOptimizer:
        """AdamW on the master weights."""
        assert self._optimizer is not None, "wrap() comes first"
        return self._optimizer

    @property
    def steps_taken(self) -> int:
        """Optimiser steps taken."""
        return self.optimizer.steps_taken

    def wrap(self, model: nn.Module, groups: Sequence[ParameterGroup], *, total_steps: int) -> None:
        """Take over the parameters."""
        del model  # it is trained as it is
        self._groups = list(groups)
        self._optimizer = self._new_optimizer(total_steps)

    def restart(self, *, lr: float, total_steps: int) -> None:
        """A new optimiser on the same master weights."""
        previous = self.optimizer
        self._groups = [replace(group, lr=lr) for group in self._groups]
        self._optimizer = self._new_optimizer(total_steps)
        self._optimizer.take_masters(previous)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a micro-batch."""
        loss.backward()
        self.optimizer.accumulate()

    def clip_and_step(self, loss: float) -> StepResult:
        """One optimiser step on what was added up."""
        return self.optimizer.step(loss)

    def full_weights(self, model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """The model's own weights where they are of the wanted type, else its master weights cast to it."""
        masters = self.optimizer.masters()
        return merged_weights(
            cast("Any", model), dtype=dtype, master=lambda weight: masters.get(weight.data_ptr(), weight)
        )

    def adapters(self, model: nn.Module) -> LoraWeights:
        """The model's own."""
        return LoraWeights.of(cast("Any", model))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Master weights and moments."""
        return self.optimizer.state()

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take them over."""
        self.optimizer.load_state(tensors, plain)

    def _new_optimizer(self, total_steps: int) -> MasterOptimizer:
        context = self._context
        return MasterOptimizer(
            self._groups,
            context.optimizer,
            master_dtype=context.master_dtype,
            total_steps=total_steps,
            collective=context.collective,
            max_nonfinite_steps=context.max_nonfinite_steps,
        )
