"""What the critic says of the answers, and which critic it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch.checks import check
from gad_ray.batch.ragged import Float32, Int32


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
        check(self.student.shape == self.student_ends.shape, "student and student_ends differ in shape")
        check(self.teacher.shape == self.teacher_ends.shape, "teacher and teacher_ends differ in shape")


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
        check(
            self.student.ndim == 1 and self.student.shape == self.teacher.shape,
            "student and teacher differ in shape",
        )
        check(self.student.dtype == np.float32 and self.teacher.dtype == np.float32, "scores must be float32")
        check(bool(np.all(np.isfinite(self.student))), "a student score is not finite")
        check(bool(np.all(np.isfinite(self.teacher))), "a teacher score is not finite")

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
        check(len(self.gap) == count, f"{len(self.gap)} gaps for {count} prompts")
        check(len(self.has_spread) == count, f"{len(self.has_spread)} spreads for {count} prompts")

    @property
    def num_with_spread(self) -> int:
        """Prompts whose responses' rewards differ."""
        return int(self.has_spread.sum())
