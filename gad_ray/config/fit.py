"""Offline fitting of the policy to fixed text: SeqKD and SODA."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gad_ray.config.length import StageLength
from gad_ray.config.models import OptimizerConfig
from gad_ray.strict_model import StrictModel

FitMethod = Literal["seqkd", "soda"]
"""A way to fit the policy to fixed text."""


class _Fit(StageLength):
    """What the methods share: length (one epoch where neither steps nor epochs are given) and batch."""

    prompts_per_step: int | None = Field(default=None, ge=1)
    """Prompts of one optimiser step; absent: the run's ``prompts_per_step``."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give either steps or epochs; neither means one epoch")
        return self

    def in_steps(self, *, num_prompts: int, prompts_per_step: int) -> int:
        """Length in steps for a data set of ``num_prompts`` training prompts; one epoch where nothing is said."""
        if self.steps is not None:
            return self.steps
        epochs = 1.0 if self.epochs is None else self.epochs
        return round(epochs * num_prompts / prompts_per_step)


class SeqKdFit(_Fit):
    """Cross-entropy on the teacher's text (sequence-level knowledge distillation, arXiv 1606.07947)."""

    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5)
    """AdamW of the fit: nothing of the game's optimiser is taken over."""


class SodaFit(_Fit):
    """DPO with the teacher's text chosen and a frozen student's own responses rejected (SODA, arXiv 2604.03873)."""

    beta: float = Field(default=0.1, gt=0.0)
    """β: how dear it is to leave the base policy. The log-ratios to it are multiplied by this."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Probability that the student's response was the better one after all."""

    nll_weight: float = Field(default=0.0, ge=0.0)
    """Weight of the cross-entropy on the teacher's text (nats a token) beside the preference loss; 0: none."""

    responses_per_prompt: int = Field(default=1, ge=1)
    """Responses drawn once, from the base policy, to each prompt; each makes a pair with the teacher's text."""

    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-6)
    """AdamW of the fit: nothing of the game's optimiser is taken over."""


class FitConfig(StrictModel):
    """Offline fitting, by ``gad-ray fit`` or as the game's warm start."""

    seqkd: SeqKdFit = SeqKdFit()
    soda: SodaFit = SodaFit()
    max_failures: int = Field(default=3, ge=0)
    """Times that lost worker processes are started anew, from the last checkpoint, before the fit gives up."""

    checkpoint_every: int = Field(default=25, ge=0)
    """Steps between checkpoints; 0: only when the fit is stopped, and at its end if ``checkpoint.at_end``."""

    def of(self, method: FitMethod) -> SeqKdFit | SodaFit:
        """The settings of one method."""
        return self.seqkd if method == "seqkd" else self.soda
