"""AdamW on float32 master weights, gradient accumulation, clipping, and what happens to bad gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gad_ray.config.models import OptimizerConfig
from gad_ray.errors import TrainingError
from gad_ray.learners.collective import Collective

MASTER = "master/"
"""Before the names of master weights in an optimiser's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One optimiser step.

    Attributes:
        grad_norm: Global L2 norm of the gradient after clipping.
        grad_norm_before_clip: The same before.
        lr: Learning rate of the first parameter group at this step.
        skipped: True if loss or gradient was not finite: the weights stand as they were.
    """

    grad_norm: float
    grad_norm_before_clip: float
    lr: float
    skipped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Named parameters that share a learning rate."""

    parameters: Mapping[str, nn.Parameter]
    lr: float


def schedule_factor(config: OptimizerConfig, *, step: int, total_steps: int) -> float:
    """Share of the learning rate at an optimiser step, from 0 on.

    Args:
        config: Schedule, warm-up steps and final share.
        step: Steps taken before this one.
        total_steps: Steps of the whole run.
    """
    if step < config.lr_warmup_steps:
        return (step + 1) / (config.lr_warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    span = max(1, total_steps - config.lr_warmup_steps)
    progress = min(1.0, (step - config.lr_warmup_steps) / span)
    left = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.min_lr_ratio + (1.0 - config.min_lr_ratio) * left


class MasterOptimizer:
    """AdamW that keeps its own copy of the weights where the model computes in less precision.

    Call :meth:`accumulate` after every backward pass and :meth:`step` once a batch. Gradients add up in the
    precision of the master weights.
    """

    def __init__(
        self,
        groups: Iterable[ParameterGroup],
        config: OptimizerConfig,
        *,
        master_dtype: torch.dtype,
        total_steps: int,
        collective: Collective,
        max_nonfinite_steps: int,
    ) -> None:
        """Take over the parameters.

        Args:
            groups: Parameters by learning rate; those without ``requires_grad`` are left out.
            config: AdamW, clipping and schedule.
            master_dtype: Precision of master weights and optimiser state.
            total_steps: Optimiser steps of the whole run, for the schedule.
            collective: The ranks whose gradients are added up.
            max_nonfinite_steps: Skipped steps in a row above which :meth:`step` raises.
        """
        self.config = config
        self.steps_taken = 0
        self._total_steps = total_steps
        self._collective = collective
        self._max_nonfinite = max_nonfinite_steps
        self._nonfinite_in_a_row = 0
        self._pairs: dict[str, tuple[nn.Parameter, Tensor]] = {}
        self._base_lrs: list[float] = []
        torch_groups: list[dict[str, Any]] = []
        for group in groups:
            decayed: list[Tensor] = []
            undecayed: list[Tensor] = []
            for name, parameter in group.parameters.items():
                if not parameter.requires_grad:
                    continue
                # LoRA adapters are float32 already: never keep a master of less precision than the weight.
                same = parameter.dtype in (master_dtype, torch.float32)
                master = parameter if same else parameter.detach().to(master_dtype).requires_grad_()
                self._pairs[name] = (parameter, master)
                (decayed if parameter.ndim > 1 else undecayed).append(master)
            for members, decay in ((decayed, config.weight_decay), (undecayed, 0.0)):
                if members:
                    torch_groups.append({"params": members, "lr": group.lr, "weight_decay": decay})
                    self._base_lrs.append(group.lr)
        self._optimizer = torch.optim.AdamW(torch_groups, betas=config.betas, eps=config.eps, fused=True)

    def accumulate(self) -> None:
        """Move the gradients of one backward pass to the master weights."""
        for parameter, master in self._pairs.values():
            if master is parameter or parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.to(master.dtype)
            else:
                master.grad.add_(parameter.grad)
            parameter.grad = None

    def step(self, loss: float) -> StepResult:
        """Add up the ranks' gradients, clip them, and move the weights.

        Args:
            loss: This rank's share of the loss, to see that it is finite.

        Returns:
            Norms and learning rate. A loss or gradient that is not finite on any rank skips the step on all.

        Raises:
            TrainingError: If more steps in a row were skipped than is allowed.
        """
        gradients: list[Tensor] = []
        for _, master in self._pairs.values():
            if master.grad is None:
                # Every rank must add up the same tensors, also one that had nothing to do.
                master.grad = torch.zeros_like(master)
            gradients.append(master.grad)
        loss_sum = torch.tensor([loss], dtype=torch.float32, device=gradients[0].device)
        self._collective.add_up([*gradients, loss_sum])
        norm = float(torch.nn.utils.get_total_norm(gradients))
        factor = schedule_factor(self.config, step=self.steps_taken, total_steps=self._total_steps)
        lr = self._base_lrs[0] * factor
        if not (math.isfinite(norm) and math.isfinite(float(loss_sum))):
            self.zero_grad()
            self._count_nonfinite(norm, float(loss_sum))
            return StepResult(grad_norm=0.0, grad_norm_before_clip=0.0, lr=lr, skipped=True)
        self._nonfinite_in_a_row = 0
        scale = min(1.0, self.config.grad_clip / (norm + 1e-6))
        if scale < 1.0:
            for gradient in gradients:
                gradient.mul_(scale)
        for group, base in zip(self._optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = base * factor
        self._optimizer.step()
        self.zero_grad()
        self._publish()
        self.steps_taken += 1
        return StepResult(grad_norm=norm * scale, grad_norm_before_clip=norm, lr=lr, skipped=False)

    def zero_grad(self) -> None:
        """Forget what was accumulated."""
        for parameter, master in self._pairs.values():
            parameter.grad = None
            master.grad = None

    def masters(self) -> dict[int, Tensor]:
        """Address of each trained weight's memory → its master copy, where it has one."""
        return {p.data_ptr(): m.detach() for p, m in self._pairs.values() if m is not p}

    @torch.no_grad()
    def take_masters(self, other: MasterOptimizer) -> None:
        """Take over the master weights of an optimiser of the same parameters, and nothing else of it."""
        for name, (_, master) in self._pairs.items():
            master.copy_(other._pairs[name][1])

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Master weights and optimiser state, as tensors and as plain values, for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, (_, master) in self._pairs.items():
            tensors[f"{MASTER}{name}"] = master.detach()
            for key, value in self._optimizer.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors, {"steps_taken": self.steps_taken, "nonfinite_in_a_row": self._nonfinite_in_a_row}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave, bit for bit.

        Raises:
            TrainingError: If the state belongs to other parameters.
        """
        expected = {f"{MASTER}{name}" for name in self._pairs}
        found = {key for key in tensors if key.startswith(MASTER)}
        if expected != found:
            example = sorted(expected ^ found)[0]
            raise TrainingError(
                f"the saved optimiser belongs to other parameters; {example} is on one side only",
                hint="resume with the model and LoRA settings of the run",
            )
        for name, (_, master) in self._pairs.items():
            master.copy_(tensors[f"{MASTER}{name}"])
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in tensors]
            if keys:
                self._optimizer.state[master] = {key: tensors[f"{key}/{name}"].clone() for key in keys}
        self.steps_taken = int(plain["steps_taken"])
        self._nonfinite_in_a_row = int(plain["nonfinite_in_a_row"])
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        """Round the master weights into the model."""
        for parameter, master in self._pairs.values():
            if master is not parameter:
                parameter.copy_(master)

    def _count_nonfinite(self, norm: float, loss: float) -> None:
        self._nonfinite_in_a_row += 1
        if self._nonfinite_in_a_row > self._max_nonfinite:
            raise TrainingError(
                f"{self._nonfinite_in_a_row} optimiser steps in a row had a loss ({loss}) or gradient norm ({norm}) "
                f"that is not finite; limits.max_nonfinite_steps = {self._max_nonfinite}",
                hint="lower optimizer.lr or optimizer.grad_clip, or compute in float32",
            )
