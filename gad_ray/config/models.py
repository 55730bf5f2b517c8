"""Models and their optimisers: settings that policy and critic share."""

from __future__ import annotations

import re
from datetime import date
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from gad_ray.config.base import Precision, PrecisionChoice, resolved
from gad_ray.strict_model import StrictModel


class LoraConfig(StrictModel):
    """Low-rank adapters in place of full fine-tuning (peft)."""

    rank: int = Field(ge=1, le=512)
    """Rank of the adapters."""

    alpha: float = Field(gt=0.0)
    """Scale: the adapter's output is multiplied by alpha / rank."""

    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear layers that get an adapter."""


class ModelConfig(StrictModel):
    """One model: where it comes from and the precision it computes in."""

    model: str = Field(min_length=1)
    """A Hugging Face directory, a hub id, a ``.gguf`` file, or ``package:NAME``."""

    chat_template: str | None = None
    """A Jinja file or a packaged template's name; needed when the tokenizer has none of its own."""

    template_variables: dict[str, bool | int | float | str] = Field(default={})
    """Values of variables that the chat template reads, such as ``enable_thinking: false``. They are part of the critic's
    fingerprint, and written into what is exported."""

    template_date: str | None = None
    """The day (YYYY-MM-DD) that a chat template which prints today's date is given; absent: 2024-07-26, or the one that an
    exported model was trained with. It never is today: a prompt would be another text tomorrow."""

    compute: PrecisionChoice = "auto"
    """Precision of the forward and backward passes; ``auto``: the one that this machine is faster in, measured when a run
    begins. Scores and losses are float32 always."""

    master: Precision = "float32"
    """Precision of the trained weights and of the optimiser's state."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    lora: LoraConfig | None = None
    """Train adapters only; absent: train all weights."""

    @property
    def template_day(self) -> date | None:
        """``template_date`` as a date."""
        return None if self.template_date is None else date.fromisoformat(self.template_date)

    @field_validator("template_date")
    @classmethod
    def _is_a_day(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            raise ValueError("a day is written YYYY-MM-DD")
        if value is not None:
            date.fromisoformat(value)
        return value

    @property
    def dtype(self) -> Precision:
        """``compute``, once it is settled.

        Raises:
            ConfigError: If it is ``auto`` still.
        """
        return resolved(self.compute, key="compute")


class OptimizerConfig(StrictModel):
    """AdamW with gradient clipping and a learning-rate schedule."""

    lr: float = Field(gt=0.0, lt=1.0)
    """Learning rate after warm-up."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's running-average coefficients."""

    eps: float = Field(default=1e-8, gt=0.0)
    """AdamW's denominator floor."""

    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay; never applied to biases and norms."""

    grad_clip: float = Field(default=1.0, gt=0.0)
    """Global gradient norm above which the gradient is scaled down."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after its warm-up, to ``min_lr_ratio`` at the end. The policy's cross-entropy warm-up,
    its game and an offline fit have each a course of their own; the critic's spans both stages, as its optimiser does."""

    lr_warmup_steps: int = Field(default=0, ge=0)
    """Optimiser steps over which the learning rate rises linearly from zero; of every such course anew."""

    min_lr_ratio: float = Field(default=0.0, ge=0.0, le=1.0)
    """Learning rate at the end, as a share of ``lr`` (linear and cosine)."""

    @model_validator(mode="after")
    def _betas_are_averages(self) -> Self:
        if not all(0.0 <= b < 1.0 for b in self.betas):
            raise ValueError(f"betas must lie in [0, 1), not {self.betas}")
        return self


class GroupConfig(StrictModel):
    """The gang of processes (ranks) that trains one model."""

    num_ranks: int = Field(default=1, ge=1)
    """Processes that share the batch, each with a full replica."""

    cpus_per_rank: float = Field(default=1.0, gt=0.0)
    """CPUs that each rank reserves."""

    gpus_per_rank: float = Field(default=0.0, ge=0.0)
    """GPUs that each rank reserves."""

    threads: int | None = Field(default=None, ge=1)
    """Torch threads per rank; absent: the machine's cores, shared by ranks that run at the same time."""
