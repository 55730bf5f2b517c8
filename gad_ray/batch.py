"""Typed, frozen containers that the actors exchange: one type per stage of a sample's life.

``PromptBatch`` → ``RolloutBatch`` → ``ScoreBatch`` → the learners. Token-level data are ragged numpy arrays
(flat values + offsets): Ray hands numpy arrays out of its object store without a copy, torch tensors not.
Every container is checked when it is built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gad_ray.config.rollout import RolloutConfig

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


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


class StopReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The policy ended its turn."""
    LENGTH = "length"
    """Cut at the token limit."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ragged:
    """Rows of different lengths: ``values`` end to end, row i at ``offsets[i]:offsets[i+1]``."""

    values: NDArray[Any]
    offsets: Int64

    def __post_init__(self) -> None:
        _check(
            self.offsets.ndim == 1 and len(self.offsets) >= 1,
            "offsets must be a vector of at least one entry",
        )
        _check(int(self.offsets[0]) == 0, "offsets must start at 0")
        _check(int(self.offsets[-1]) == len(self.values), "offsets must end at the number of values")
        _check(bool(np.all(np.diff(self.offsets) >= 0)), "offsets must not decrease")

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any] | NDArray[Any]], dtype: Any) -> Self:
        """Put rows end to end, as ``dtype``."""
        arrays = [np.asarray(row, dtype=dtype) for row in rows]
        lengths = [len(a) for a in arrays]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
        values = np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)
        return cls(values=values, offsets=offsets)

    @classmethod
    def concat(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, in order."""
        values = np.concatenate([p.values for p in parts])
        lengths = np.concatenate([p.lengths for p in parts])
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
        return cls(values=values, offsets=offsets)

    @property
    def lengths(self) -> Int64:
        """Length of each row."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Sequence[int] | Int64) -> Ragged:
        """The rows of these indices, in their order."""
        return Ragged.from_rows([self[int(i)] for i in indices], self.values.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBatch:
    """The prompts of one step, with the teacher's text. Never empty."""

    step: int
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        _check(len(self.examples) > 0, "a PromptBatch needs at least one example")

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
        _check(self.num_responses >= 1, f"num_responses must be at least 1, not {self.num_responses}")
        _check(self.max_tokens >= 1, f"max_tokens must be at least 1, not {self.max_tokens}")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch:
    """R responses of the policy to the prompts of one step.

    Attributes:
        step: The step whose prompts were answered.
        example_ids: [R] id of the example that each response answers; responses of one group are adjacent.
        texts: [R] decoded responses, without control tokens.
        prompt_tokens: R rows of int32 token ids of the rendered prompt.
        response_tokens: R rows of int32 token ids, with the end-of-turn token if it was sampled.
        logprobs: R rows of float32, log-probability (nats) of each response token under the unprocessed
            distribution (before temperature, top-p and penalties), as the engine computed it.
        stop_reasons: [R] why each generation ended.
        policy_version: Version of the weights that drew these samples.
        sampling: The settings they were drawn with.
        teacher_lengths: [R] int32 length of the teacher's response to the same prompt, in the policy's tokens.
        num_failed: Responses left out because their generation failed even when retried.
        num_retried: Generations that had to be repeated.
        seconds: Wall time of the generation.
    """

    step: int
    example_ids: tuple[str, ...]
    texts: tuple[str, ...]
    prompt_tokens: Ragged
    response_tokens: Ragged
    logprobs: Ragged
    stop_reasons: tuple[StopReason, ...]
    policy_version: int
    sampling: SamplingSettings
    teacher_lengths: Int32
    num_failed: int = 0
    num_retried: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        n = len(self.example_ids)
        for name in (
            "texts",
            "prompt_tokens",
            "response_tokens",
            "logprobs",
            "stop_reasons",
            "teacher_lengths",
        ):
            _check(
                len(getattr(self, name)) == n, f"{name} has {len(getattr(self, name))} rows, example_ids {n}"
            )
        _check(
            bool(np.array_equal(self.response_tokens.offsets, self.logprobs.offsets)),
            "logprobs and response_tokens differ in their row lengths",
        )
        _check(bool(np.all(np.isfinite(self.logprobs.values))), "logprobs holds a value that is not finite")
        _check(n == 0 or bool(np.all(self.response_tokens.lengths > 0)), "a response without tokens")
        _check(len(self.groups()) == len(set(self.example_ids)), "responses of one group must be adjacent")

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def num_tokens(self) -> int:
        """Response tokens in the batch."""
        return len(self.response_tokens.values)

    def groups(self) -> list[tuple[int, int]]:
        """[start, stop) of each run of responses that answer the same prompt."""
        bounds: list[tuple[int, int]] = []
        start = 0
        for i in range(1, len(self.example_ids) + 1):
            if i == len(self.example_ids) or self.example_ids[i] != self.example_ids[start]:
                bounds.append((start, i))
                start = i
        return bounds

    def take(self, indices: Sequence[int]) -> RolloutBatch:
        """The responses of these indices, in their order; those of one group must stay adjacent."""
        return replace(
            self,
            example_ids=tuple(self.example_ids[i] for i in indices),
            texts=tuple(self.texts[i] for i in indices),
            prompt_tokens=self.prompt_tokens.take(indices),
            response_tokens=self.response_tokens.take(indices),
            logprobs=self.logprobs.take(indices),
            stop_reasons=tuple(self.stop_reasons[i] for i in indices),
            teacher_lengths=self.teacher_lengths[list(indices)],
        )

    @classmethod
    def concat(cls, parts: Sequence[RolloutBatch]) -> RolloutBatch:
        """Join the shards of one step.

        Raises:
            ValueError: If the parts differ in step, policy version or sampling settings.
        """
        first = parts[0]
        for part in parts[1:]:
            _check(part.step == first.step, f"steps differ: {part.step} and {first.step}")
            _check(
                part.policy_version == first.policy_version,
                f"policy versions differ: {part.policy_version} and {first.policy_version}",
            )
            _check(part.sampling == first.sampling, "sampling settings differ")
        return cls(
            step=first.step,
            example_ids=tuple(i for p in parts for i in p.example_ids),
            texts=tuple(t for p in parts for t in p.texts),
            prompt_tokens=Ragged.concat([p.prompt_tokens for p in parts]),
            response_tokens=Ragged.concat([p.response_tokens for p in parts]),
            logprobs=Ragged.concat([p.logprobs for p in parts]),
            stop_reasons=tuple(s for p in parts for s in p.stop_reasons),
            policy_version=first.policy_version,
            sampling=first.sampling,
            teacher_lengths=np.concatenate([p.teacher_lengths for p in parts]),
            num_failed=sum(p.num_failed for p in parts),
            num_retried=sum(p.num_retried for p in parts),
            seconds=max(p.seconds for p in parts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutReceipt:
    """What the controller is told of a RolloutBatch that stays in the object store."""

    num_responses: int
    num_tokens: int
    policy_version: int
    seconds: float

    @classmethod
    def of(cls, batch: RolloutBatch) -> Self:
        """The receipt of a batch."""
        return cls(
            num_responses=len(batch),
            num_tokens=batch.num_tokens,
            policy_version=batch.policy_version,
            seconds=batch.seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenValues:
    """The critic's values of the single tokens of one response, and of the teacher's to the same prompt.

    Attributes:
        position: The response's place in the RolloutBatch.
        student: [n] float32 value of each token of the response, as the critic tokenises it.
        student_ends: [n] int32 index behind each token's last character in the text.
        teacher: The same of the teacher's response.
        teacher_ends: The same of the teacher's response.
    """

    position: int
    student: Float32
    student_ends: Int32
    teacher: Float32
    teacher_ends: Int32

    def __post_init__(self) -> None:
        _check(self.student.shape == self.student_ends.shape, "student and student_ends differ in shape")
        _check(self.teacher.shape == self.teacher_ends.shape, "teacher and teacher_ends differ in shape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """An answer to "is this the same critic?": SHA-256 digests (hex) of all that a score depends on, part by part."""

    weights: str
    head: str
    template: str
    tokenizer: str
    pooling: str
    dtype: str

    @property
    def digest(self) -> str:
        """SHA-256 over all parts, as hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def number(self) -> int:
        """The first 12 hex digits as a number, for what takes numbers alone; a float64 holds it exactly."""
        return int(self.digest[:12], 16)

    def differing(self, other: Fingerprint) -> tuple[str, ...]:
        """Names of the parts that are not the same in both."""
        theirs = asdict(other)
        return tuple(part for part, digest in asdict(self).items() if digest != theirs[part])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBatch:
    """The critic's scores of one step, taken before its update.

    Attributes:
        student: [R] float32 score of each response of the matching RolloutBatch, in its order.
        teacher: [R] float32 score of the teacher's response to the same prompt, repeated over its group.
        critic_version: Number of optimiser steps the critic had taken.
        fingerprint: Of the critic that gave them, where it was taken.
        token_values: Values of single tokens, of those responses for which they were kept.
    """

    student: Float32
    teacher: Float32
    critic_version: int
    fingerprint: Fingerprint | None = None
    token_values: tuple[TokenValues, ...] = ()

    def __post_init__(self) -> None:
        _check(
            self.student.ndim == 1 and self.student.shape == self.teacher.shape,
            "student and teacher differ in shape",
        )
        _check(
            self.student.dtype == np.float32 and self.teacher.dtype == np.float32, "scores must be float32"
        )
        _check(bool(np.all(np.isfinite(self.student))), "a student score is not finite")
        _check(bool(np.all(np.isfinite(self.teacher))), "a teacher score is not finite")

    def __len__(self) -> int:
        return len(self.student)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFigures:
    """What a step has shown of its prompts, a number or two each: the controller may read it.

    Attributes:
        example_ids: [P] the prompts, in the order of the responses.
        gap: [P] float32 mean of s_T − s_S over a prompt's responses.
        has_spread: [P] whether its responses' rewards differ.
    """

    example_ids: tuple[str, ...]
    gap: Float32
    has_spread: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count = len(self.example_ids)
        _check(len(self.gap) == count, f"{len(self.gap)} gaps for {count} prompts")
        _check(len(self.has_spread) == count, f"{len(self.has_spread)} spreads for {count} prompts")

    @property
    def num_with_spread(self) -> int:
        """Prompts whose responses' rewards differ."""
        return int(self.has_spread.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSnapshot:
    """Policy weights of one version, as they cross the object store.

    ``tensors`` maps Hugging Face parameter names to numpy arrays. bfloat16 has no numpy type: such
    tensors travel as uint16 with ``dtype == "bfloat16"`` and are viewed back by the reader.

    Attributes:
        version: The policy version these weights are.
        dtype: ``float32`` or ``bfloat16``.
        tensors: Parameter name → array. Tied output heads are included under their own name.
        probe_logprobs: [P] float32 log-probabilities (nats) that the learner gives to the tokens of the
            fixed probe text with these weights.
    """

    version: int
    dtype: str
    tensors: Mapping[str, NDArray[Any]]
    probe_logprobs: Float32

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.nbytes for t in self.tensors.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCritic:
    """A critic that lies in the object store.

    Attributes:
        fingerprint: Of the critic.
        step: Optimiser steps that it has taken.
        seconds: Time that it took to check, fingerprint and put it.
        num_bytes: Its size.
        state: Reference of the critic's state (:class:`gad_ray.models.critic_state.CriticState`); None where only the news of it goes on.
    """

    fingerprint: str
    step: int
    seconds: float
    num_bytes: int
    state: Any


Metrics = dict[str, float]
"""Metric name → value, named as in the metric reference; one step's values."""


def merge_metrics(*parts: Mapping[str, float]) -> Metrics:
    """Join metric maps that must not overlap.

    Raises:
        ValueError: If two parts name the same metric: two things must never be logged under one name.
    """
    merged: Metrics = {}
    for part in parts:
        for name, value in part.items():
            _check(name not in merged, f"metric {name} is given twice")
            merged[name] = float(value)
    return merged


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStats:
    """What one update of a learner did: its metrics, and whether steps were skipped as non-finite."""

    metrics: Mapping[str, float]
    num_steps: int
    num_skipped: int = 0
    seconds: float = 0.0
