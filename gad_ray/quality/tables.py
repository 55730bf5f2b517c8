"""The tables of a report as rows of text, which terminal and HTML share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gad_ray.quality.checks import Side
from gad_ray.quality.discriminators import Discriminator
from gad_ray.quality.figures import Comparison, Figures, Gap, Lengths
from gad_ray.quality.measures import percent

CHECK_NAMES: Mapping[str, str] = {
    "unfinished": "seem cut off",
    "control_token": "control tokens of a template",
    "turn_marker": "beginnings of turns",
    "timestamp": "timestamps",
    "invisible": "invisible characters",
    "broken": "broken characters",
    "repetitive": "repeat themselves",
    "echo": "begin with the prompt",
    "other_script": "another script than the prompt's",
}
"""Checks in words."""

_NOT_APPLICABLE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of text. The first column is words, the others are figures.

    Attributes:
        title: What it shows.
        head: Column names.
        rows: As many texts each.
        note: What to know about it; may be empty.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables_of(figures: Figures) -> tuple[TextTable, ...]:
    """All tables of a report that have something in them."""
    tables = [_rows(figures), _lengths(figures), _kinds(figures), _checks(figures), _repetitions(figures)]
    if figures.comparison is not None:
        tables += _comparison(figures.comparison)
    return tuple(table for table in tables if table.rows)


def _rows(figures: Figures) -> TextTable:
    kinds = [
        ("rows read", figures.num_rows),
        ("rows that training can use", figures.num_usable),
        ("distinct prompts with their answer", figures.num_items),
        ("distinct prompts", figures.num_prompts),
        ("with earlier turns", figures.num_with_history),
        ("with a system message", figures.num_with_system),
        *((f"converted: {name}", count) for name, count in figures.conversions.items()),
        *((f"unusable: {reason.value}", found.count) for reason, found in figures.rejected.items()),
    ]
    return TextTable(
        title="Rows",
        head=("", "rows"),
        rows=(
            *((name, f"{count:,}") for name, count in kinds),
            *((f"a column of text that is not used: {name}", "") for name in figures.unused_columns),
            *(
                (
                    f"the policy's template ends every prompt with {mark}: its answers begin inside a thought",
                    "",
                )
                for mark in filter(None, [figures.opened_thought])
            ),
        ),
    )


def _lengths(figures: Figures) -> TextTable:
    rows = [("prompt", figures.prompt_lengths), ("teacher", figures.answer_lengths)]
    if (comparison := figures.comparison) is not None:
        if comparison.teacher_lengths.count != figures.answer_lengths.count:
            rows.append(("teacher, where the student answered", comparison.teacher_lengths))
        rows.append(("student", comparison.lengths))
    shown = [(name, *_summed(lengths, "{:,.0f}")) for name, lengths in rows]
    if comparison is not None:
        shown.append(("student / teacher", *_summed(comparison.ratio, "{:.2f}")))
    return TextTable(
        title="Lengths",
        head=("", "texts", "mean", "5 %", "median", "95 %", "longest"),
        rows=tuple(shown),
        note=f"in {figures.unit}; {'prompts with' if figures.in_tokens else 'the text of prompts, without'} the template",
    )


def _summed(lengths: Lengths, form: str) -> tuple[str, ...]:
    values = (lengths.mean, lengths.low, lengths.median, lengths.p95, lengths.longest)
    return (f"{lengths.count:,}", *(form.format(value) for value in values))


def _kinds(figures: Figures) -> TextTable:
    rows = [
        *((f"answer: {name}", count) for name, count in figures.formats.items()),
        *((f"prompt: {name}", count) for name, count in figures.languages.items()),
    ]
    return TextTable(
        title="Forms and scripts",
        head=("", "rows", "share"),
        rows=tuple((name, f"{count:,}", percent(count / figures.num_items)) for name, count in rows),
        note="by script, not by language: English and French are both Latin",
    )


def _checks(figures: Figures) -> TextTable:
    rows: list[tuple[str, ...]] = []
    for check, words in CHECK_NAMES.items():
        found = [figures.found[side].get(check) for side in Side]
        if any(each and each.count for each in found):
            cells = (
                f"{each.count:,} ({percent(each.share)})" if each and each.total else _NOT_APPLICABLE
                for each in found
            )
            rows.append((words, *cells))
    return TextTable(
        title="Found in the text", head=("", *(f"{side.value}" for side in Side)), rows=tuple(rows)
    )


def _repetitions(figures: Figures) -> TextTable:
    duplicates, leakage = figures.duplicates, figures.leakage
    kinds = [
        ("rows that repeat an earlier one", duplicates.rows),
        ("rows with the prompt of an earlier one, another answer", duplicates.prompts),
        ("distinct prompts nearly an earlier one", duplicates.near_prompts),
        ("rows whose answer five prompts or more have", duplicates.shared_answers),
    ]
    if leakage is not None:
        kinds += [
            ("held-out prompts in these rows", leakage.exact),
            ("held-out prompts nearly in these rows", leakage.near),
        ]
    rows = tuple((name, f"{each.count:,}", percent(each.share)) for name, each in kinds)
    return TextTable(title="Repetitions", head=("", "count", "share"), rows=rows)


def _comparison(comparison: Comparison) -> list[TextTable]:
    return [
        _sides(comparison),
        _gaps("Gap by the teacher's length", comparison.by_length),
        _gaps("Gap by the form of the teacher's answer", comparison.by_format),
        _gaps("Gap by the prompt's script", comparison.by_language),
        _verdicts([d for d in (comparison.length_only, comparison.surface_only) if d is not None]),
        _weights(comparison.surface_only),
    ]


def _sides(comparison: Comparison) -> TextTable:
    rows = [
        ("prompts with both sides", f"{comparison.num_prompts:,}"),
        ("student's answers", f"{comparison.lengths.count:,}"),
        ("cut at the token limit", percent(comparison.cut.share)),
        ("the teacher's answer to the letter", percent(comparison.identical.share)),
        ("of the form of the teacher's answer", percent(comparison.same_form)),
        ("letters in the prompt's script", percent(comparison.in_script)),
    ]
    if comparison.students.num_failed:
        rows.append(("prompts that the policy could not answer", f"{comparison.students.num_failed:,}"))
    note = f"student's answers from {comparison.students.source}"
    if comparison.students.settings:
        note += f" ({', '.join(f'{key} {value}' for key, value in comparison.students.settings.items())})"
    if (scores := comparison.scores) is not None:
        won = scores.teacher_better
        rows += [
            ("teacher above student", f"{percent(won.value)} [{won.low:.2f}, {won.high:.2f}]"),
            ("mean score gap", f"{scores.gap:+.3f}"),
            (
                "correlation of score and log length",
                _NOT_APPLICABLE if scores.length_correlation is None else f"{scores.length_correlation:+.2f}",
            ),
        ]
        if scores.num_too_long:
            rows.append(("pairs too long for the critic", f"{scores.num_too_long:,}"))
        note += (
            f"; scores from {scores.critic}, {scores.num_pairs} pairs; they compare only within one prompt"
        )
    return TextTable(title="Teacher and student", head=("", "value"), rows=tuple(rows), note=note)


def _gaps(title: str, gaps: Sequence[Gap]) -> TextTable:
    scored = any(gap.teacher_better is not None for gap in gaps)
    head = ("", "pairs", "teacher", "student", "ratio")
    rows = [
        (
            gap.bucket,
            f"{gap.num_pairs:,}",
            f"{gap.teacher_length:,.0f}",
            f"{gap.student_length:,.0f}",
            f"{gap.ratio:.2f}",
            *(_scored(gap) if scored else ()),
        )
        for gap in gaps
    ]
    return TextTable(
        title=title,
        head=(*head, "teacher wins", "score gap") if scored else head,
        rows=tuple(rows),
        note="medians of the lengths and of their ratio",
    )


def _scored(gap: Gap) -> tuple[str, str]:
    if gap.teacher_better is None or gap.score_gap is None:
        return _NOT_APPLICABLE, _NOT_APPLICABLE
    return percent(gap.teacher_better), f"{gap.score_gap:+.2f}"


def _verdicts(discriminators: Sequence[Discriminator]) -> TextTable:
    return TextTable(
        title="What a discriminator achieves that never reads",
        head=("", "d_acc", "95 %", "AUC", "95 %", "prompts", "pairs"),
        rows=tuple(
            (
                each.name,
                f"{each.d_acc.value:.3f}",
                f"{each.d_acc.low:.2f}–{each.d_acc.high:.2f}",
                f"{each.auc.value:.3f}",
                f"{each.auc.low:.2f}–{each.auc.high:.2f}",
                f"{each.num_prompts:,}",
                f"{each.num_pairs:,}",
            )
            for each in discriminators
        ),
        note="cross-validated over prompts; 0.5 is chance, and from 0.9 on a critic need not learn anything else",
    )


def _weights(discriminator: Discriminator | None) -> TextTable:
    return TextTable(
        title="What the surface-only one goes by",
        head=("", "weight", "teacher", "student"),
        rows=tuple(
            (each.feature, f"{each.weight:+.2f}", f"{each.teacher:.3g}", f"{each.student:.3g}")
            for each in (discriminator.weights if discriminator else ())
        ),
        note="weight per standard deviation, positive where more of it speaks for the teacher; then the means",
    )
