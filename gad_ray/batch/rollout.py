"""What the policy answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import numpy as np

from gad_ray.batch.checks import check
from gad_ray.batch.prompts import SamplingSettings
from gad_ray.batch.ragged import Int32, Int64, Ragged


class StopReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The policy ended its turn."""
    LENGTH = "length"
    """Cut at the token limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch:
    """R responses of the policy to the prompts of one step.

    Attributes:
        step: The step whose prompts were answered.
        example_ids: [R] id of the example that each response answers; responses of one group are adjacent.
        texts: [R] decoded responses, without control tokens.
        prompt_tokens: R rows of int32 token ids of the rendered prompt.
        response_tokens: R rows of int32 token ids, with the end-of-turn token if it was sampled.
        logprobs: R rows of float32, log-probability (nats) of each response token under the distribution that it was
            drawn from (after penalty, temperature and top-p), as the engine computed it.
        stop_reasons: [R] why each generation ended.
        policy_versions: [R] int64 version of the weights that drew each sample.
        sampling: The settings they were drawn with.
        teacher_lengths: [R] int32 length of the teacher's response to the same prompt, in the policy's tokens and
            without an end-of-turn token: compare it with ``text_lengths``.
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
    policy_versions: Int64
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
            "policy_versions",
            "teacher_lengths",
        ):
            check(
                len(getattr(self, name)) == n, f"{name} has {len(getattr(self, name))} rows, example_ids {n}"
            )
        check(
            bool(np.array_equal(self.response_tokens.offsets, self.logprobs.offsets)),
            "logprobs and response_tokens differ in their row lengths",
        )
        check(bool(np.all(np.isfinite(self.logprobs.values))), "logprobs holds a value that is not finite")
        check(n == 0 or bool(np.all(self.response_tokens.lengths > 0)), "a response without tokens")
        check(len(self.groups()) == len(set(self.example_ids)), "responses of one group must be adjacent")

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def text_lengths(self) -> Int32:
        """[R] tokens of each response's text: without the end-of-turn token, as the teacher's are counted."""
        ended = np.asarray([reason is StopReason.STOP for reason in self.stop_reasons], dtype=np.int32)
        return np.asarray(self.response_tokens.lengths - ended, dtype=np.int32)

    @property
    def num_tokens(self) -> int:
        """Response tokens in the batch, with the end-of-turn tokens."""
        return len(self.response_tokens.values)

    @property
    def oldest_version(self) -> int:
        """Version of the oldest weights that drew one of the samples; at least one must be there."""
        return int(self.policy_versions.min())

    def groups(self) -> list[tuple[int, int]]:
        """[start, stop) of each run of responses that answer the same prompt."""
        bounds: list[tuple[int, int]] = []
        start = 0
        for i in range(1, len(self.example_ids) + 1):
            if i == len(self.example_ids) or self.example_ids[i] != self.example_ids[start]:
                bounds.append((start, i))
                start = i
        return bounds

    def group_index(self) -> Int64:
        """[R] index of each response's group, from 0 on."""
        sizes = [stop - start for start, stop in self.groups()]
        return np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)

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
            policy_versions=self.policy_versions[list(indices)],
            teacher_lengths=self.teacher_lengths[list(indices)],
        )

    @classmethod
    def concat(cls, parts: Sequence[RolloutBatch]) -> RolloutBatch:
        """Join the shards of one step, of whatever policy versions; a single one is given back as it is.

        Raises:
            ValueError: If the parts differ in step or sampling settings.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        for part in parts[1:]:
            check(part.step == first.step, f"steps differ: {part.step} and {first.step}")
            check(part.sampling == first.sampling, "sampling settings differ")
        return cls(
            step=first.step,
            example_ids=tuple(i for p in parts for i in p.example_ids),
            texts=tuple(t for p in parts for t in p.texts),
            prompt_tokens=Ragged.concat([p.prompt_tokens for p in parts]),
            response_tokens=Ragged.concat([p.response_tokens for p in parts]),
            logprobs=Ragged.concat([p.logprobs for p in parts]),
            stop_reasons=tuple(s for p in parts for s in p.stop_reasons),
            policy_versions=np.concatenate([p.policy_versions for p in parts]),
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
    versions: Mapping[str, int]
    """Id of each prompt that was answered → oldest policy version that drew one of its responses."""

    seconds: float

    @classmethod
    def of(cls, batch: RolloutBatch) -> Self:
        """The receipt of a batch."""
        return cls(
            num_responses=len(batch),
            num_tokens=batch.num_tokens,
            versions={
                batch.example_ids[start]: int(batch.policy_versions[start:stop].min())
                for start, stop in batch.groups()
            },
            seconds=batch.seconds,
        )
