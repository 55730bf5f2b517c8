"""Teacher against student: lengths, forms, scores, and what a discriminator achieves that never reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gad_ray.core.preference import preference, wins
from gad_ray.evaluation.intervals import Interval, bootstrap_mean
from gad_ray.quality.checks import ANSWER_CHECKS, PROMPT_CHECKS, Side
from gad_ray.quality.discriminators import MAX_PAIRS, Discriminator, discriminate
from gad_ray.quality.features import LENGTH_FEATURES, SURFACE_FEATURES
from gad_ray.quality.figures import Comparison, Found, Gap, Histogram, Lengths, Scores, Students
from gad_ray.quality.formats import Format
from gad_ray.quality.samples import SampleBox
from gad_ray.quality.survey import Survey

_FORMATS = tuple(Format)
_BINS = 32
_RATIO_EDGES = np.linspace(-4.0, 4.0, _BINS + 1)
_SCRIPT_NAMES = {"CJK": "Chinese", "LATIN": "Latin", "": "no letters"}

Numbers = NDArray[np.float64]


def script_name(script: str) -> str:
    """How a report calls a script."""
    return _SCRIPT_NAMES.get(script, script.capitalize())


def log_histogram(*columns: Numbers) -> tuple[Histogram, ...]:
    """Histograms of some columns of lengths on common edges, even on a logarithmic scale."""
    longest = max((float(column.max()) for column in columns if len(column)), default=1.0)
    edges = np.geomspace(1.0, max(2.0, longest) * 1.0001, _BINS + 1)
    return tuple(_histogram(np.maximum(column, 1.0), edges) for column in columns)


def _histogram(values: Numbers, edges: Numbers) -> Histogram:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Histogram(edges=tuple(map(float, edges)), counts=tuple(map(int, counts)))


def compare_sides(
    survey: Survey, students: Students, *, critic: str | None, num_too_long: int, seed: int
) -> Comparison | None:
    """The comparison of both sides; None where there are no answers of a student.

    Args:
        survey: The rows.
        students: Where the student's answers come from.
        critic: Where scores come from; None without any.
        num_too_long: Pairs that the critic could not score.
        seed: Of draws and intervals.
    """
    pairs = survey.pairs
    if not len(pairs):
        return None
    item = np.asarray(pairs.item, dtype=np.int64)
    teacher = np.asarray(survey.items.answer_length, dtype=np.float64)[item]
    student = np.asarray(pairs.length, dtype=np.float64)
    ratio = student / np.maximum(teacher, 1.0)
    form = np.asarray(survey.items.form, dtype=np.int64)[item]
    first, second = log_histogram(teacher, student)
    table = _GapTable(survey, teacher, student, ratio)
    length_only, surface_only = _discriminators(survey, item, seed=seed)
    script = [survey.items.script[i] for i in item]
    return Comparison(
        students=students,
        num_prompts=len(np.unique(item)),
        lengths=Lengths.of(student),
        teacher_lengths=Lengths.of(teacher),
        ratio=Lengths.of(ratio),
        length_histograms=(first, second),
        ratio_histogram=_histogram(np.log2(np.maximum(ratio, 1e-9)), _RATIO_EDGES),
        cut=Found(count=int(np.sum(pairs.cut)), total=len(pairs)),
        identical=_identical(survey, item),
        same_form=float(np.mean(np.asarray(pairs.form) == form)),
        in_script=float(np.mean(pairs.in_script)),
        by_length=table.by(*_length_buckets(teacher)),
        by_format=table.by([_FORMATS[i].value for i in form]),
        by_language=table.by([script_name(name) for name in script]),
        scores=None
        if critic is None
        else _scores(survey, item, teacher, student, critic, num_too_long, seed),
        length_only=length_only,
        surface_only=surface_only,
    )


def _identical(survey: Survey, item: NDArray[np.int64]) -> Found:
    box = SampleBox()
    items = survey.items
    alike = np.asarray(survey.pairs.identical, dtype=np.bool_)
    for i in np.unique(item[alike]):
        box.add(items.places[i], items.prompts[i], items.answers[i], "the student's answer is the teacher's")
    return Found(count=int(alike.sum()), total=len(item), samples=box.samples)


def _length_buckets(teacher: Numbers) -> tuple[list[str], list[str]]:
    """Quarters of the pairs by the teacher's length, named by their bounds: one a pair, and all in order."""
    bounds = np.unique(np.quantile(teacher, (0.25, 0.5, 0.75)).round())
    bucket = np.searchsorted(bounds, teacher, side="left")
    low = [0, *(int(bound) + 1 for bound in bounds)]
    names = [f"{a}–{int(b)}" for a, b in zip(low, bounds, strict=False)] + [f"{low[-1]} and more"]
    return [names[i] for i in bucket], names


class _GapTable:
    """Gaps over the pairs of a bucket, for several ways of sorting them into buckets."""

    def __init__(self, survey: Survey, teacher: Numbers, student: Numbers, ratio: Numbers) -> None:
        self._teacher, self._student, self._ratio = teacher, student, ratio
        self._teacher_score = np.asarray(survey.pairs.teacher_score, dtype=np.float64)
        self._student_score = np.asarray(survey.pairs.student_score, dtype=np.float64)

    def by(self, buckets: Sequence[str], order: Sequence[str] = ()) -> tuple[Gap, ...]:
        """One gap a bucket that has pairs: in the order given, else the most frequent first."""
        names = np.asarray(buckets)
        counts = Counter(buckets)
        wanted = [name for name in order if counts[name]] or sorted(counts, key=lambda n: (-counts[n], n))
        return tuple(self._gap(name, names == name) for name in wanted)

    def _gap(self, name: str, chosen: NDArray[np.bool_]) -> Gap:
        teacher, student = self._teacher_score[chosen], self._student_score[chosen]
        scored = ~np.isnan(teacher)
        teacher, student = teacher[scored], student[scored]
        return Gap(
            bucket=name,
            num_pairs=int(chosen.sum()),
            teacher_length=float(np.median(self._teacher[chosen])),
            student_length=float(np.median(self._student[chosen])),
            ratio=float(np.median(self._ratio[chosen])),
            teacher_better=preference(teacher, student) if len(teacher) else None,
            score_gap=float((teacher - student).mean()) if len(teacher) else None,
        )


def _scores(
    survey: Survey,
    item: NDArray[np.int64],
    teacher_length: Numbers,
    student_length: Numbers,
    critic: str,
    num_too_long: int,
    seed: int,
) -> Scores | None:
    teacher = np.asarray(survey.pairs.teacher_score, dtype=np.float64)
    student = np.asarray(survey.pairs.student_score, dtype=np.float64)
    scored = ~np.isnan(teacher)
    if not scored.any():
        return None
    gap = (teacher - student)[scored]
    _, prompt = np.unique(item[scored], return_inverse=True)
    won = wins(teacher[scored], student[scored])
    share_won = np.bincount(prompt, weights=won) / np.bincount(prompt)
    scores = np.concatenate([teacher[scored], student[scored]])
    lengths = np.log1p(np.concatenate([teacher_length[scored], student_length[scored]]))
    varies = scores.std() > 0 and lengths.std() > 0
    return Scores(
        critic=critic,
        num_pairs=len(gap),
        teacher_better=_mean_of(share_won, seed=seed),
        gap=float(gap.mean()),
        length_correlation=float(np.corrcoef(scores, lengths)[0, 1]) if varies else None,
        num_too_long=num_too_long,
    )


def _mean_of(values: Numbers, *, seed: int) -> Interval:
    """The mean of shares with its interval; of a single one nothing is sure."""
    if len(values) < 2:
        return Interval(value=float(values.mean()), low=0.0, high=1.0)
    return bootstrap_mean(values, seed=seed)


def _discriminators(
    survey: Survey, item: NDArray[np.int64], *, seed: int
) -> tuple[Discriminator | None, Discriminator | None]:
    chosen = np.arange(len(item))
    if len(chosen) > MAX_PAIRS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MAX_PAIRS, replace=False))
    teacher = np.stack([survey.pairs.teacher_features[i] for i in chosen]).astype(np.float64)
    student = np.stack([survey.pairs.student_features[i] for i in chosen]).astype(np.float64)
    border, prompts = len(LENGTH_FEATURES), item[chosen]
    return (
        discriminate(
            "length-only", LENGTH_FEATURES, teacher[:, :border], student[:, :border], prompts, seed=seed
        ),
        discriminate(
            "surface-only", SURFACE_FEATURES, teacher[:, border:], student[:, border:], prompts, seed=seed
        ),
    )


def sides_checked(survey: Survey) -> dict[Side, dict[str, Found]]:
    """What the checks found, with how many texts they looked at."""
    return {
        side: {
            name: _found(survey, side, name)
            for name in (PROMPT_CHECKS if side is Side.PROMPT else ANSWER_CHECKS)
        }
        for side in Side
    }


def _found(survey: Survey, side: Side, check: str) -> Found:
    box = survey.found.get((side, check), SampleBox())
    return Found(count=box.count, total=survey.checked[side], samples=box.samples)
