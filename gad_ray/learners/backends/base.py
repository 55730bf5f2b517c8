"""What a backend is: how one model is trained on the hardware that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gad_ray.config.backend import BackendSettings
from gad_ray.config.models import OptimizerConfig
from gad_ray.learners.collective import Collective
from gad_ray.learners.optim import ParameterGroup, StepResult
from gad_ray.models.lora import LoraWeights
from gad_ray.registry import Registry


class Backend(Protocol):
    """Trains one model; learners reach its gradients, its optimiser and its whole weights through this alone.

    :meth:`wrap` comes first. Then any number of :meth:`backward`, one a micro-batch, and :meth:`clip_and_step`, once a
    batch, on every rank alike: both may be collective calls.
    """

    @property
    def steps_taken(self) -> int:
        """Optimiser steps since :meth:`wrap` or :meth:`restart`, skipped ones left out."""
        ...

    def wrap(self, model: nn.Module, groups: Sequence[ParameterGroup], *, total_steps: int) -> None:
        """Take over a model.

        Args:
            model: The model; it may be changed in place.
            groups: Its parameters by learning rate; those without ``requires_grad`` are not trained.
            total_steps: Optimiser steps of the stage, for the learning-rate schedule.
        """
        ...

    def restart(self, *, lr: float, total_steps: int) -> None:
        """Begin a stage: the same weights, and an optimiser that has seen no gradient.

        Args:
            lr: Learning rate of all parameters.
            total_steps: Optimiser steps of the stage.
        """
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch's share of the loss to those of the batch."""
        ...

    def clip_and_step(self, loss: float) -> StepResult:
        """Add up the ranks' gradients, clip them to ``optimizer.grad_clip``, and move the weights.

        Args:
            loss: This rank's share of the loss. Where it or a gradient is not finite on any rank, no rank steps.

        Raises:
            TrainingError: If more steps in a row were skipped than is allowed.
        """
        ...

    def full_weights(self, model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """All weights of a Hugging Face model that was wrapped or is part of what was, one after the other.

        Args:
            model: The model, with or without adapters.
            dtype: Type that the weights are wanted in.

        Yields:
            Plain Hugging Face name and whole weight, adapters merged, from the most exact copy that there is. It may
            share memory with the model. Tied weights come under each of their names, and share one tensor.
        """
        ...

    def adapters(self, model: nn.Module) -> LoraWeights:
        """The adapters of a model that was wrapped with some, whole and in float32. They may share its memory."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What this rank keeps of weights and optimiser, as tensors and as plain values, for a checkpoint."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave, to the bit.

        Raises:
            TrainingError: If it belongs to another model.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendContext:
    """What every backend is made with, beside its own settings.

    Attributes:
        optimizer: AdamW, clipping and schedule.
        master_dtype: Precision of the trained weights and of the optimiser's state.
        collective: The ranks that share each batch.
        max_nonfinite_steps: Skipped steps in a row above which a step raises.
    """

    optimizer: OptimizerConfig
    master_dtype: torch.dtype
    collective: Collective
    max_nonfinite_steps: int


BACKENDS: Registry[BackendSettings, Callable[[Any, BackendContext], Backend]] = Registry("backend")
"""Settings → (settings, context) → backend."""
