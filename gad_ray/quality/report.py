"""A report on data, from names of files to findings.

files ─► rows ─► survey ─► (policy answers a draw) ─► (critic scores it) ─► figures ─► findings
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gad_ray.data.layout import Layout
from gad_ray.data.sources import Input, resolve_sources
from gad_ray.errors import ConfigError, DataError
from gad_ray.findings import Severity
from gad_ray.models.pairs import Pair
from gad_ray.quality.compare import compare_sides, log_histogram, script_name, sides_checked
from gad_ray.quality.duplicates import duplicates_of, leakage_of
from gad_ray.quality.figures import Comparison, Figures, Found, Leakage, Lengths, Students
from gad_ray.quality.findings import DataFinding, judge
from gad_ray.quality.formats import Format
from gad_ray.quality.measures import PROMPT_LIMIT, TEACHER_LIMIT
from gad_ray.quality.rows import read_sided_rows
from gad_ray.quality.samples import SampleBox
from gad_ray.quality.settings import ReportSettings
from gad_ray.quality.survey import Items, Survey, num_characters

if TYPE_CHECKING:
    from gad_ray.quality.sides import CriticSide, PolicySide

Progress = Callable[[str, int, int | None], None]
"""What is being done, how many are done, and of how many if that is known."""

_TELL_EVERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """What was measured, and what is to be said of it, the most severe first."""

    figures: Figures
    findings: tuple[DataFinding, ...]

    @property
    def verdict(self) -> str:
        """In a sentence."""
        counts = Counter(finding.severity for finding in self.findings)
        if counts[Severity.CRITICAL]:
            return (
                f"Not fit to train on as they are: {_times(counts[Severity.CRITICAL], 'critical finding')}."
            )
        if counts[Severity.WARNING]:
            return f"Usable, with {_times(counts[Severity.WARNING], 'warning')} to look into first."
        missing = "" if self.figures.comparison else " The student's side was not looked at."
        return f"Nothing found that would spoil a run.{missing}"


def _times(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def make_report(settings: ReportSettings, *, on_progress: Progress) -> QualityReport:
    """Read, measure and judge.

    Args:
        settings: What to look at.
        on_progress: Told what is being done.

    Raises:
        DataError: If a source cannot be read, or none of its rows can be used.
        ConfigError: If a critic is given, and nothing of a student's to score.
        ModelError: If the policy or the critic cannot be loaded.
        RolloutError: If too many answers of the policy fail.
    """
    inputs, heldout_inputs = resolve_sources(settings.files), resolve_sources(settings.heldout)
    # Both are loaded before minutes are spent on reading: a model that is not there is told at once.
    side, critic = _policy_side(settings), _critic_side(settings)
    survey = Survey(
        measure=side.num_tokens if side else len,
        measure_prompt=side.num_prompt_tokens if side else num_characters,
        num_drawn=settings.num_drawn,
        seed=settings.seed,
    )
    _read(inputs, survey, "rows", settings.layout, on_progress)
    leakage = _leakage(survey, heldout_inputs, settings.layout, on_progress) if heldout_inputs else None
    students = _students(settings, side, survey, on_progress)
    scored_by, num_too_long = _score(critic, survey, on_progress)
    on_progress("duplicates and discriminators", 0, None)
    comparison = compare_sides(
        survey, students, critic=scored_by, num_too_long=num_too_long, seed=settings.seed
    )
    figures = _figures(
        settings,
        inputs,
        survey,
        leakage=leakage,
        comparison=comparison,
        opened_thought=side and side.opened_thought(),
    )
    return QualityReport(figures=figures, findings=judge(figures))


def _figures(
    settings: ReportSettings,
    inputs: Sequence[Input],
    survey: Survey,
    *,
    leakage: Leakage | None,
    comparison: Comparison | None,
    opened_thought: str | None,
) -> Figures:
    items = survey.items
    answers = np.asarray(items.answer_length, dtype=np.float64)
    return Figures(
        sources=tuple(source.name for source in inputs),
        unit=f"tokens of {settings.policy.model}" if settings.policy else "characters",
        in_tokens=settings.policy is not None,
        num_rows=survey.num_rows,
        num_usable=survey.num_usable,
        num_items=len(items),
        num_prompts=len(set(items.prompt_hash)),
        num_with_history=survey.num_with_history,
        num_with_system=survey.num_with_system,
        conversions=dict(survey.conversions.most_common()),
        unused_columns=tuple(survey.unused),
        opened_thought=opened_thought,
        rejected={
            reason: Found(count=box.count, total=survey.num_rows, samples=box.samples)
            for reason, box in survey.rejected.items()
        },
        prompt_lengths=Lengths.of(items.prompt_length),
        answer_lengths=Lengths.of(answers),
        long_prompts=_longer(items, items.prompt_length, PROMPT_LIMIT) if settings.policy else None,
        long_answers=_longer(items, items.answer_length, TEACHER_LIMIT) if settings.policy else None,
        answer_histogram=log_histogram(answers)[0],
        formats=_counted([tuple(Format)[i].value for i in items.form]),
        languages=_counted([script_name(script) for script in items.script]),
        found=sides_checked(survey),
        duplicates=duplicates_of(survey),
        leakage=leakage,
        comparison=comparison,
    )


def _counted(names: Sequence[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _longer(items: Items, lengths: Sequence[int], limit: int) -> Found:
    """The items of which something is longer than a limit."""
    box = SampleBox()
    for item in np.flatnonzero(np.asarray(lengths) > limit):
        box.add(items.places[item], items.prompts[item], items.answers[item], f"{lengths[item]} tokens")
    return Found(count=box.count, total=len(items), samples=box.samples)


def _policy_side(settings: ReportSettings) -> PolicySide | None:
    if settings.policy is None:
        return None
    from gad_ray.quality.sides import PolicySide

    return PolicySide(settings.policy, seed=settings.seed)


def _critic_side(settings: ReportSettings) -> CriticSide | None:
    if settings.critic is None:
        return None
    from gad_ray.quality.sides import CriticSide

    return CriticSide(settings.critic)


def _read(inputs: Sequence[Input], survey: Survey, what: str, layout: Layout, on_progress: Progress) -> None:
    """Take all rows of some inputs.

    Raises:
        DataError: If an input cannot be read or holds no rows, or none of all rows can be used.
    """
    for source in inputs:
        before = survey.num_rows
        for row in read_sided_rows(source, layout):
            survey.add(row)
            if survey.num_rows % _TELL_EVERY == 0:
                on_progress(what, survey.num_rows, None)
        if survey.num_rows == before:
            raise DataError("holds no rows", where=source.name, hint="write the file again, or leave it out")
    on_progress(what, survey.num_rows, survey.num_rows)
    if not survey.num_usable:
        reasons = sorted(survey.rejected.items(), key=lambda entry: -entry[1].count)
        told = [
            f"{box.count} × {reason} (as {box.samples[0].place}: {box.samples[0].note})"
            for reason, box in reasons
        ]
        raise DataError(
            f"none of {survey.num_rows} rows can be used: {'; '.join(told[:3])}",
            where=", ".join(source.name for source in inputs[:3]),
            hint="a row needs content (or prompt, messages) and teacher_response, both text",
        )


def _leakage(survey: Survey, inputs: Sequence[Input], layout: Layout, on_progress: Progress) -> Leakage:
    heldout = Survey(measure=len, measure_prompt=num_characters, num_drawn=0, seed=0)
    _read(inputs, heldout, "held-out rows", layout, on_progress)
    return leakage_of(survey, heldout, sources=tuple(source.name for source in inputs))


def _students(
    settings: ReportSettings, side: PolicySide | None, survey: Survey, on_progress: Progress
) -> Students:
    """Where answers of a student come from; where rows have none and there is a policy, it answers the draw."""
    if len(survey.pairs) or settings.policy is None or side is None or not survey.drawn:
        return Students(source="the rows", sampled=False, settings={}, num_failed=0)
    policy, drawn = settings.policy, survey.drawn
    num_failed = 0
    on_progress("answers of the policy", 0, len(drawn))
    for done, answer in enumerate(side.answer([each.example for each in drawn]), start=1):
        each = drawn[done - 1]
        if answer is None:
            num_failed += 1
        else:
            survey.add_student(each.item, each.example, each.place, answer.text, cut=answer.cut)
        on_progress("answers of the policy", done, len(drawn))
    return Students(
        source=policy.model,
        sampled=True,
        settings={
            "temperature": policy.temperature,
            "top_p": policy.top_p,
            "max_tokens": policy.max_tokens,
            "seed": settings.seed,
        },
        num_failed=num_failed,
    )


def _score(critic: CriticSide | None, survey: Survey, on_progress: Progress) -> tuple[str | None, int]:
    """Score the draw: where the scores come from (None without any), and how many pairs are too long."""
    if critic is None:
        has_scores = any(score == score for score in survey.pairs.teacher_score)
        return ("the rows" if has_scores else None), 0
    if not len(survey.pairs):
        raise ConfigError(
            "a critic compares two answers to a prompt, and there are none of a student",
            where="--critic",
            hint="give --policy MODEL, or files with a student_response",
        )
    survey.forget_scores()
    drawn = [each for each in survey.drawn if each.students]
    groups = [
        [
            Pair(each.example.messages, text)
            for text in (each.example.teacher_response, *each.students.values())
        ]
        for each in drawn
    ]
    num_too_long = 0
    for done, (teacher, *students) in enumerate(critic.score(groups), start=1):
        for pair, student in zip(drawn[done - 1].students, students, strict=True):
            if teacher is None or student is None:
                num_too_long += 1
            else:
                survey.set_scores(pair, teacher, student)
        on_progress("scores of the critic", done, len(drawn))
    return f"critic {critic.fingerprint[:12]}", num_too_long
