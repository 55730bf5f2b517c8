"""The figures of a report, typed: what the findings judge, and what terminal, HTML and JSON show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gad_ray.data.rows import Reason
from gad_ray.evaluation.intervals import Interval
from gad_ray.quality.checks import Side
from gad_ray.quality.discriminators import Discriminator
from gad_ray.quality.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How many of something, of how many, and a few to look at."""

    count: int
    total: int
    samples: tuple[Sample, ...] = ()

    @property
    def share(self) -> float:
        """In [0, 1]; 0 of nothing."""
        return self.count / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of some texts, or ratios of lengths. All zero if there are none."""

    count: int
    mean: float
    low: float
    median: float
    p95: float
    longest: float

    @classmethod
    def of(cls, values: ArrayLike) -> Lengths:
        """Sum up some values; ``low`` is the 5th percentile."""
        numbers = np.asarray(values, dtype=np.float64)
        if not numbers.size:
            return cls(count=0, mean=0.0, low=0.0, median=0.0, p95=0.0, longest=0.0)
        low, median, p95 = np.quantile(numbers, (0.05, 0.5, 0.95))
        return cls(
            count=numbers.size,
            mean=float(numbers.mean()),
            low=float(low),
            median=float(median),
            p95=float(p95),
            longest=float(numbers.max()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of some values within edges: ``len(edges)`` is one more than ``len(counts)``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """What is there more than once.

    Attributes:
        rows: Rows whose prompt and answer an earlier row has.
        prompts: Items whose prompt an earlier item has with another answer.
        near_prompts: Distinct prompts that are near-duplicates of an earlier one.
        largest_cluster: Prompts in the largest cluster of near-duplicates.
        shared_answers: Items whose answer, or one like it, is given to at least five different prompts. Answers of
            fewer than 20 characters, as labels are, do not count.
    """

    rows: Found
    prompts: Found
    near_prompts: Found
    largest_cluster: int
    shared_answers: Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """Held-out prompts that are also in the data.

    Attributes:
        sources: Names of the held-out inputs.
        num_heldout: Distinct held-out prompts.
        num_unusable: Held-out rows that cannot be used.
        exact: Held-out prompts that are there but for white space.
        near: Others that have a near-duplicate there.
    """

    sources: tuple[str, ...]
    num_heldout: int
    num_unusable: int
    exact: Found
    near: Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Teacher against student, over the pairs of one bucket.

    Attributes:
        bucket: Which pairs: a range of the teacher's lengths, a form of its answer, or the prompt's script.
        num_pairs: How many.
        teacher_length: Median length of the teacher's answers.
        student_length: Median length of the student's.
        ratio: Median of student's length / teacher's.
        teacher_better: Share of pairs in which the critic puts the teacher above, ties half; None without a critic.
        score_gap: Mean of the teacher's score minus the student's; None without a critic.
    """

    bucket: str
    num_pairs: int
    teacher_length: float
    student_length: float
    ratio: float
    teacher_better: float | None
    score_gap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a critic made of the pairs.

    Attributes:
        critic: Its fingerprint, or where the scores come from.
        num_pairs: Pairs scored.
        teacher_better: Share of pairs with the teacher above, ties half: the mean over prompts, with its interval.
        gap: Mean of the teacher's score minus the student's.
        length_correlation: Of the scores with the log length of what was scored, both sides; None where either is
            constant.
        num_too_long: Pairs left out because they are longer than the critic's limit.
    """

    critic: str
    num_pairs: int
    teacher_better: Interval
    gap: float
    length_correlation: float | None
    num_too_long: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Students:
    """Where the student's answers come from.

    Attributes:
        source: In words.
        sampled: Whether they were drawn now.
        settings: Sampling settings, where they were.
        num_failed: Prompts without an answer: too long for the policy, or failed.
    """

    source: str
    sampled: bool
    settings: Mapping[str, float]
    num_failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Both sides, where there are answers of a student.

    Attributes:
        students: Where those come from.
        num_prompts: Prompts with both.
        lengths: Of the student's answers.
        teacher_lengths: Of the teacher's answers to the same prompts.
        ratio: Student's length / teacher's.
        length_histograms: Of teacher and student, on the same edges.
        ratio_histogram: Of the log2 of the ratio.
        cut: Student's answers cut at the token limit.
        identical: Student's answers that are the teacher's.
        same_form: Share of the student's answers of the teacher's form.
        in_script: Mean share of the student's letters in the prompt's script.
        by_length: Gaps by the teacher's length.
        by_format: Gaps by the form of the teacher's answer.
        by_language: Gaps by the script of the prompt.
        scores: What a critic made of them; None without one.
        length_only: The discriminator that sees only length; None where there are too few prompts.
        surface_only: The discriminator that sees only the surface.
    """

    students: Students
    num_prompts: int
    lengths: Lengths
    teacher_lengths: Lengths
    ratio: Lengths
    length_histograms: tuple[Histogram, Histogram]
    ratio_histogram: Histogram
    cut: Found
    identical: Found
    same_form: float
    in_script: float
    by_length: tuple[Gap, ...]
    by_format: tuple[Gap, ...]
    by_language: tuple[Gap, ...]
    scores: Scores | None
    length_only: Discriminator | None
    surface_only: Discriminator | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that was measured.

    Attributes:
        sources: Names of the inputs.
        unit: What lengths are counted in.
        in_tokens: Whether that is tokens of the policy.
        num_rows: Rows read.
        num_usable: Rows that training can use.
        num_items: Distinct (prompt, teacher's answer).
        num_prompts: Distinct prompts.
        num_with_history: Items with earlier turns.
        num_with_system: Items with a system message.
        conversions: Name of a conversion → rows that were brought to a prompt and a response by it.
        unused_columns: Columns of text that neither is made of.
        opened_thought: The mark with which the policy's template opens a thought after every prompt; None: it does not.
        rejected: Why the others cannot be used.
        prompt_lengths: Of the prompts: in tokens with the chat template, in characters without.
        answer_lengths: Of the teacher's answers.
        long_prompts: Prompts of more tokens than data.max_prompt_tokens is if nothing else is set; None where lengths
            are not in tokens.
        long_answers: The same of the teacher's answers and data.max_teacher_tokens.
        answer_histogram: Of the teacher's answers' lengths.
        formats: Form → teacher's answers of that form.
        languages: Script → prompts in it; empty where a prompt has no letters.
        found: Side → check → what it found.
        duplicates: What is there more than once.
        leakage: None where no held-out files were named.
        comparison: None where there are no answers of a student.
    """

    sources: tuple[str, ...]
    unit: str
    in_tokens: bool
    num_rows: int
    num_usable: int
    num_items: int
    num_prompts: int
    num_with_history: int
    num_with_system: int
    conversions: Mapping[str, int]
    unused_columns: tuple[str, ...]
    opened_thought: str | None
    rejected: Mapping[Reason, Found]
    prompt_lengths: Lengths
    answer_lengths: Lengths
    long_prompts: Found | None
    long_answers: Found | None
    answer_histogram: Histogram
    formats: Mapping[str, int]
    languages: Mapping[str, int]
    found: Mapping[Side, Mapping[str, Found]]
    duplicates: Duplicates
    leakage: Leakage | None
    comparison: Comparison | None

    def of(self, side: Side, check: str) -> Found:
        """What a check found on one side: none of none where there is no text of that side."""
        return self.found[side][check]
