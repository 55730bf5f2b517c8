"""A backend of one's own: gradient descent with momentum, in the model's own precision. See docs/extending/backend.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gad_ray.config.backend import BackendSettings
from gad_ray.learners.backends import BACKENDS, BackendContext
from gad_ray.learners.optim import ParameterGroup, StepResult
from gad_ray.models.load import merged_weights
from gad_ray.models.lora import LoraWeights


class SgdBackendSettings(BackendSettings):
    """A quarter of AdamW's memory: for a model that would not fit otherwise."""

    name: str = "examples.extending.sgd_backend:SgdBackendSettings"
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)


@BACKENDS.register(SgdBackendSettings)
class SgdBackend:
    """Implements :class:`gad_ray.learners.backends.base.Backend` for any number of ranks with whole replicas."""

    steps_taken = 0

    def __init__(self, settings: SgdBackendSettings, context: BackendContext) -> None:
        self._settings, self._context = settings, context

    def wrap(self, model: nn.Module, groups: Sequence[ParameterGroup], *, total_steps: int) -> None:
        """Take over the parameters; the learning rate stays as it is."""
        del model, total_steps
        self._named = {name: p for group in groups for name, p in group.parameters.items() if p.requires_grad}
        self._rates = {name: group.lr for group in groups for name in group.parameters}
        self._begin()

    def restart(self, *, lr: float, total_steps: int) -> None:
        """Forget the momentum."""
        del total_steps
        self._rates = dict.fromkeys(self._named, lr)
        self._begin()

    def backward(self, loss: Tensor) -> None:
        """torch adds gradients up by itself."""
        loss.backward()

    def clip_and_step(self, loss: float) -> StepResult:
        """The ranks add up their gradients, and all take the same step, or none."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._named.values()]
        whole_loss = torch.tensor([loss])
        self._context.collective.add_up([*gradients, whole_loss])
        norm = float(nn.utils.get_total_norm(gradients))
        skipped = not math.isfinite(norm + float(whole_loss))
        scale = 0.0 if skipped else min(1.0, self._context.optimizer.grad_clip / (norm + 1e-6))
        if not skipped:
            for parameter, gradient in zip(self._named.values(), gradients, strict=True):
                parameter.grad = gradient.mul_(scale)
            self._optimizer.step()
            self.steps_taken += 1
        self._optimizer.zero_grad()
        lr = self._optimizer.param_groups[0]["lr"]
        return StepResult(
            grad_norm=norm * scale if not skipped else 0.0, grad_norm_before_clip=norm, lr=lr, skipped=skipped
        )

    def full_weights(self, model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """The model holds them whole."""
        return merged_weights(cast("Any", model), dtype=dtype)

    def adapters(self, model: nn.Module) -> LoraWeights:
        """The same."""
        return LoraWeights.of(cast("Any", model))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and momenta."""
        tensors = {f"master/{name}": p.detach() for name, p in self._named.items()}
        for name, p in self._named.items():
            buffer = self._optimizer.state[p].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum/{name}"] = buffer
        return tensors, {"steps_taken": self.steps_taken}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take them over."""
        for name, p in self._named.items():
            p.copy_(tensors[f"master/{name}"])
            if f"momentum/{name}" in tensors:
                self._optimizer.state[p]["momentum_buffer"] = tensors[f"momentum/{name}"].clone()
        self.steps_taken = int(plain["steps_taken"])

    def _begin(self) -> None:
        groups = [{"params": [p], "lr": self._rates[name]} for name, p in self._named.items()]
        self._optimizer = torch.optim.SGD(groups, lr=0.0, momentum=self._settings.momentum)
        self.steps_taken = 0
