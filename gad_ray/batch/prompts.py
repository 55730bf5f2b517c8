"""Before the policy: a row of data, the prompts of a step, and how they are to be answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from gad_ray.batch.checks import check

if TYPE_CHECKING:
    from gad_ray.config.rollout import RolloutConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message. ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One usable row: a conversation that ends with the user, and the teacher's answer to it."""

    id: str
    messages: tuple[Message, ...]
    teacher_response: str
    meta: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBatch:
    """The prompts of one step, with the teacher's text. Never empty."""

    step: int
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        check(len(self.examples) > 0, "a PromptBatch needs at least one example")

    def __len__(self) -> int:
        return len(self.examples)

    def shard(self, index: int, count: int) -> PromptBatch | None:
        """Every ``count``-th example from ``index`` on, or None if that is none."""
        part = self.examples[index::count]
        return PromptBatch(step=self.step, examples=part) if part else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How responses are drawn; stored beside every sample that is kept."""

    num_responses: int
    temperature: float
    top_p: float
    repetition_penalty: float
    max_tokens: int
    seed: int

    def __post_init__(self) -> None:
        check(self.num_responses >= 1, f"num_responses must be at least 1, not {self.num_responses}")
        check(self.max_tokens >= 1, f"max_tokens must be at least 1, not {self.max_tokens}")

    @classmethod
    def of(cls, rollout: RolloutConfig, *, num_responses: int, seed: int) -> Self:
        """A run's own settings, for so many responses to each prompt."""
        return cls(
            num_responses=num_responses,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            repetition_penalty=rollout.repetition_penalty,
            max_tokens=rollout.max_response_tokens,
            seed=seed,
        )
