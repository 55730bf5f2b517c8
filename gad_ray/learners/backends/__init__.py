"""How a model is trained on the hardware that is there: one protocol, one file a backend."""

from __future__ import annotations

from gad_ray.config.critic import CriticConfig
from gad_ray.config.policy import PolicyConfig
from gad_ray.learners.backends.base import BACKENDS, Backend, BackendContext
from gad_ray.learners.backends.local import LocalBackend
from gad_ray.learners.collective import Collective
from gad_ray.models.load import TORCH_DTYPES

__all__ = ["BACKENDS", "Backend", "BackendContext", "LocalBackend", "new_backend"]


def new_backend(
    config: PolicyConfig | CriticConfig, *, collective: Collective, max_nonfinite_steps: int
) -> Backend:
    """The backend that a model's settings name; nothing is wrapped yet.

    Args:
        config: Of the policy or of the critic.
        collective: The ranks that share each batch.
        max_nonfinite_steps: Skipped optimiser steps in a row above which a step raises.

    Raises:
        ConfigError: If nobody has registered it.
    """
    context = BackendContext(
        optimizer=config.optimizer,
        master_dtype=TORCH_DTYPES[config.model.master],
        collective=collective,
        max_nonfinite_steps=max_nonfinite_steps,
    )
    return BACKENDS.of(config.backend)(config.backend, context)
