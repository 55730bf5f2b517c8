"""What every worker of a fit is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_ray.config import FitMethod, RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob:
    """A fit, as its workers see it.

    Attributes:
        config: The run's configuration.
        method: How to fit.
        total_steps: Optimiser steps of the whole fit.
        train: Reference to the training prompts, a tuple of examples.
        heldout: Reference to the held-out prompts, likewise.
        responses: For SODA: folder of the student's responses.
        reference: For SODA: file of the base policy's log-probabilities; made by the workers.
        export: Where the fitted policy goes.
        logs: Folder of the workers' logs.
        mailbox: Handle of the :class:`~gad_ray.fitting.mailbox.Mailbox`.
    """

    config: RunConfig
    method: FitMethod
    total_steps: int
    train: Any
    heldout: Any
    responses: Path
    reference: Path
    export: Path
    logs: Path
    mailbox: Any

    def log(self, rank: int) -> Path:
        """The log of one worker."""
        return self.logs / f"fit-{rank}.log"
