"""The rollout actor: stateless but for the version of its weights; it can die at any time."""

from __future__ import annotations

import os
from pathlib import Path

import ray

from gad_ray.actors.process import redirect_output
from gad_ray.batch import PromptBatch, RolloutBatch, RolloutReceipt, SamplingSettings, WeightsSnapshot
from gad_ray.config.run import RunConfig
from gad_ray.rollout.worker import RolloutWorker


class RolloutActor:
    """A :class:`RolloutWorker` in a process of its own."""

    def __init__(self, config: RunConfig, log_path: str) -> None:
        redirect_output(Path(log_path))
        self._config = config
        self._worker: RolloutWorker | None = None

    @ray.method
    def setup(self) -> int:
        """Load engine and model, anew where there is one; returns the process id."""
        if self._worker is not None:
            self._worker.close()
        self._worker = RolloutWorker.build(self._config)
        return os.getpid()

    @ray.method(num_returns=2)
    def generate(
        self, prompts: PromptBatch, sampling: SamplingSettings
    ) -> tuple[RolloutBatch, RolloutReceipt]:
        """Draw responses; see :meth:`RolloutWorker.generate`."""
        batch = self._ready.generate(prompts, sampling)
        return batch, RolloutReceipt.of(batch)

    @ray.method
    def load_weights(self, weights: WeightsSnapshot) -> float:
        """Take new weights and prove it; returns the probe's gap in nats."""
        return self._ready.load_weights(weights)

    @ray.method
    def close(self) -> None:
        """Free the engine."""
        if self._worker is not None:
            self._worker.close()

    @property
    def _ready(self) -> RolloutWorker:
        assert self._worker is not None, "setup() comes first"
        return self._worker
