"""The reference and the coefficient of the KL penalty, as a run moves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gad_ray.batch import Float32
from gad_ray.config.policy import KlConfig
from gad_ray.core.kl import adapted_coefficient, k1_kl, k2_kl, k3_kl

_ESTIMATORS = {"k1": k1_kl, "k2": k2_kl, "k3": k3_kl}
_PREFIX = "reference/"


class KlPenalty:
    """Keeps the reference's weights, renews them when that is due, and adapts the coefficient.

    Attributes:
        config: The penalty's settings.
        coefficient: Its weight as it stands.
        reference: Name → weight of the trained parameters, as the reference has them; empty without a penalty.
    """

    def __init__(self, config: KlConfig) -> None:
        self.config = config
        self.coefficient = config.coefficient
        self.reference: dict[str, Tensor] = {}
        self._steps = 0
        self._estimate = _ESTIMATORS[config.estimator]

    def begin_stage(self, weights: Mapping[str, Tensor]) -> None:
        """Take the policy as it stands for the reference."""
        self._steps = 0
        self._take(weights)

    def begin_step(self, weights: Mapping[str, Tensor]) -> None:
        """Renew the reference if that is due."""
        every = self.config.refresh_every
        if every is not None and self._steps > 0 and self._steps % every == 0:
            self._take(weights)

    def end_step(self, kl: float, *, num_responses: int) -> None:
        """Adapt the coefficient to what a step measured.

        Args:
            kl: Mean KL of the step, nats a token, the same on every rank.
            num_responses: Responses that it was measured on; 0 if there was no update.
        """
        self._steps += 1
        adaptive = self.config.adaptive
        if adaptive is not None and num_responses > 0:
            self.coefficient = adapted_coefficient(
                self.coefficient,
                kl=kl,
                target=adaptive.target,
                num_responses=num_responses,
                horizon=adaptive.horizon,
            )

    def take_coefficient(self, config: KlConfig) -> None:
        """Go by this configuration's coefficient from now on, unless it adapts itself."""
        if config.adaptive is None:
            self.coefficient = config.coefficient

    def mean(self, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, num_tokens: int) -> Tensor:
        """A micro-batch's share of the mean over ``num_tokens`` tokens, with gradient."""
        return self._estimate(logprobs, ref_logprobs=ref_logprobs, mask=mask, num_tokens=num_tokens)

    @torch.no_grad()
    def sums(self, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Float32:
        """[batch] the estimate summed over each response's tokens."""
        rows = zip(logprobs.split(1), ref_logprobs.split(1), mask.split(1), strict=True)
        return np.asarray([float(self.mean(*row, num_tokens=1)) for row in rows], dtype=np.float32)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values for a checkpoint."""
        tensors = {_PREFIX + name: t for name, t in self.reference.items()}
        return tensors, {"kl_coefficient": self.coefficient, "kl_steps": self._steps}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.reference = {
            name.removeprefix(_PREFIX): t.clone() for name, t in tensors.items() if name.startswith(_PREFIX)
        }
        self.coefficient = float(plain["kl_coefficient"])
        self._steps = int(plain["kl_steps"])

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        if self.config.coefficient > 0.0:
            self.reference = {name: p.detach().clone() for name, p in weights.items()}
