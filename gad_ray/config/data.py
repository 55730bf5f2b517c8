"""Which prompts and teacher texts a run reads, and what it refuses."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gad_ray.config.curriculum import CurriculumConfig
from gad_ray.strict_model import StrictModel

ColumnRole = Literal["prompt", "response", "conversation", "system", "input", "history", "ignore"]
"""What a column of a data file can be."""

Thoughts = Literal["refuse", "strip", "keep"]
"""What is done with a teacher's thoughts in a response."""


class DataConfig(StrictModel):
    """Where the rows come from, which part is held out, and what makes a row unusable."""

    train: tuple[str, ...] = Field(min_length=1)
    """Files, globs, ``package:NAME`` data sets, or ``hub:OWNER/NAME[:SPLIT]``; Parquet and JSONL."""

    heldout: tuple[str, ...] = ()
    """Files of prompts that are never trained on. Empty: ``heldout_prompts`` rows of ``train`` are held out."""

    heldout_prompts: int = Field(default=64, ge=0)
    """Prompts held out for evaluation: drawn by ``seed`` from ``train``, or the first rows of ``heldout``."""

    seed: int = Field(default=0, ge=0)
    """Seed of the held-out draw and of the order of prompts in every epoch."""

    columns: dict[str, ColumnRole] = Field(default_factory=dict[str, ColumnRole])
    """What a column is whose name does not say it: ``prompt``, ``response``, ``conversation`` (ends with the
    response), ``system``, ``input`` (goes below the prompt), ``history`` (earlier turns) or ``ignore``. A row that
    fills ``system``, ``input``, ``history``, ``images`` or another column beside the prompt is not used without it."""

    thoughts: Thoughts = "refuse"
    """A teacher's thoughts (``<think>…</think>``, or their end alone) in a response: do not use the row, take the
    thoughts off the beginning of the response, or train on them. What is stripped is counted."""

    max_prompt_tokens: int = Field(default=2048, ge=1)
    """Longest prompt, in tokens of the policy's tokenizer with its chat template."""

    long_prompts: Literal["refuse", "skip"] = "refuse"
    """What to do with a longer prompt: refuse the run by name, or quarantine the row. Never cut it."""

    max_teacher_tokens: int = Field(default=2048, ge=1)
    """Longest teacher response, in tokens of the policy's tokenizer; longer rows are quarantined."""

    max_quarantined_fraction: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of unusable rows, of all rows read from ``train`` and ``heldout`` together, above which the run
    refuses to start. Rows left out because their prompt is held out are not unusable, and do not count."""

    curriculum: CurriculumConfig | None = None
    """Absent: every epoch is all prompts in random order."""

    @model_validator(mode="after")
    def _something_is_held_out(self) -> Self:
        if self.heldout and self.heldout_prompts == 0:
            raise ValueError("heldout names files, but heldout_prompts is 0: none of them would be used")
        return self
