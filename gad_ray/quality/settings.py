"""What a report looks at. Imports nothing that takes time: the command line makes these."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from gad_ray.data.layout import Layout
from gad_ray.errors import ConfigError

Engine = Literal["auto", "vllm", "transformers"]
"""What decodes; ``auto`` is vLLM where it is installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """The student: which model, and how it answers.

    Attributes:
        model: A directory, a hub id, a GGUF file, or ``package:NAME``.
        chat_template: A Jinja file or a packaged template; the tokenizer's own when None.
        max_tokens: Longest answer.
        temperature: Sampling temperature; 0 is greedy.
        top_p: Nucleus mass.
        engine: What decodes: one of ``Engine``.

    Raises:
        ConfigError: If there is no such engine.
    """

    model: str
    chat_template: str | None = None
    max_tokens: int = 512
    temperature: float = 0.8
    top_p: float = 1.0
    engine: str = "auto"

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise ConfigError(
                f"there is no engine {self.engine!r}",
                where="--engine",
                hint=f"take one of {', '.join(get_args(Engine))}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What to look at.

    Attributes:
        files: Sources of the rows, as ``data.train`` takes them.
        heldout: Sources of held-out rows to look for among them.
        policy: The student: its tokens count lengths, and it answers a draw where rows have no student's answers.
        critic: Directory of an exported critic.
        num_drawn: Prompts that the policy answers or the critic scores.
        seed: Of the draw, the sampling and the intervals.
        layout: What columns are, and what to do with thoughts, as ``data.columns`` and ``data.thoughts`` say it.
    """

    files: tuple[str, ...]
    heldout: tuple[str, ...] = ()
    policy: PolicySettings | None = None
    critic: Path | None = None
    num_drawn: int = 200
    seed: int = 0
    layout: Layout = field(default_factory=Layout)
