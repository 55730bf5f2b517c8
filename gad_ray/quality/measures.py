"""What each rule judges: one value, the figures behind it in words, rows to look at, and overrides made concrete."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gad_ray.config.data import DataConfig
from gad_ray.quality.checks import Side
from gad_ray.quality.discriminators import MIN_PROMPTS, Discriminator
from gad_ray.quality.figures import Comparison, Figures, Found
from gad_ray.quality.samples import Sample

PROMPT_LIMIT: int = DataConfig.model_fields["max_prompt_tokens"].default
TEACHER_LIMIT: int = DataConfig.model_fields["max_teacher_tokens"].default
_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a rule judges.

    Attributes:
        value: What its thresholds are compared with.
        evidence: The figures, in words.
        overrides: Settings made concrete for these data.
        samples: Rows that show it.
    """

    value: float
    evidence: str
    overrides: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()


def percent(share: float) -> str:
    """A share for people: two digits that count, so that one row of many is not 0 %."""
    if share in {0.0, 1.0}:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def _share(found: Found, what: str) -> Measured | None:
    """The share of something; None where there is none of it."""
    if not found.count:
        return None
    evidence = f"{found.count} of {found.total} {what} ({percent(found.share)})"
    return Measured(value=found.share, evidence=evidence, samples=found.samples)


def _both(figures: Figures, check: str, what: str) -> Measured | None:
    """The same check on the teacher's answers and on prompts, whichever has more."""
    kinds = ((Side.TEACHER, f"of the teacher's answers {what}"), (Side.PROMPT, f"prompts {what}"))
    measured = [m for side, words in kinds if (m := _share(figures.of(side, check), words))]
    if not measured:
        return None
    return Measured(
        value=max(m.value for m in measured),
        evidence="; ".join(m.evidence for m in measured),
        samples=tuple(sample for m in measured for sample in m.samples)[:5],
    )


# --- Shortcuts


def length_only(figures: Figures) -> Measured | None:
    """d_acc of the length-only discriminator."""
    comparison = figures.comparison
    if comparison is None or comparison.length_only is None:
        return None
    verdict = comparison.length_only
    evidence = (
        f"length alone: d_acc {_interval(verdict)}, AUC {verdict.auc.value:.2f}; the student's answers have "
        f"{comparison.ratio.median:.2g} times the teacher's length in the median"
    )
    return _if_sure(verdict, evidence, overrides=_length_overrides(figures, comparison))


def surface_only(figures: Figures) -> Measured | None:
    """d_acc of the surface-only discriminator."""
    comparison = figures.comparison
    if comparison is None or comparison.surface_only is None:
        return None
    verdict = comparison.surface_only
    named = ", ".join(
        f"{w.feature} (teacher {w.teacher:.2g}, student {w.student:.2g})" for w in verdict.weights[:_NAMED]
    )
    return _if_sure(
        verdict, f"surface alone: d_acc {_interval(verdict)}, AUC {verdict.auc.value:.2f}; {named}"
    )


def _if_sure(verdict: Discriminator, evidence: str, *, overrides: tuple[str, ...] = ()) -> Measured | None:
    """Nothing where the interval holds one half: that is chance."""
    if verdict.d_acc.low <= 0.5:
        return None
    return Measured(value=verdict.d_acc.value, evidence=evidence, overrides=overrides)


def _interval(verdict: Discriminator) -> str:
    return f"{verdict.d_acc.value:.2f} [{verdict.d_acc.low:.2f}, {verdict.d_acc.high:.2f}]"


def _length_overrides(figures: Figures, comparison: Comparison) -> tuple[str, ...]:
    """A penalty outside the teacher's lengths, in tokens: only where tokens were counted."""
    if not figures.in_tokens:
        return ()
    teacher = comparison.teacher_lengths
    limit = _rounded(teacher.p95)
    if comparison.ratio.median < 1.0:
        low = max(1, min(int(teacher.low), limit // 2))
        return (f"reward.format=[{{name: length_window, max_tokens: {limit}, min_tokens: {low}}}]",)
    return (f"reward.format=[{{name: length_window, max_tokens: {limit}, soft_tokens: {limit // 4}}}]",)


def _rounded(tokens: float) -> int:
    """Up to a multiple of 16."""
    return max(16, math.ceil(tokens / 16) * 16)


def teacher_loses(figures: Figures) -> Measured | None:
    """Share of pairs that the student wins, where that is surely more than half."""
    scores = figures.comparison.scores if figures.comparison else None
    if scores is None or scores.teacher_better.high >= 0.5:
        return None
    won = scores.teacher_better
    return Measured(
        value=1.0 - won.value,
        evidence=(
            f"the teacher is put above the student in {percent(won.value)} of {scores.num_pairs} pairs "
            f"[{won.low:.2f}, {won.high:.2f}]; mean score gap {scores.gap:+.2f}"
        ),
    )


def score_length(figures: Figures) -> Measured | None:
    """Size of the correlation of score and length."""
    scores = figures.comparison.scores if figures.comparison else None
    if scores is None or scores.length_correlation is None or scores.num_pairs < MIN_PROMPTS:
        return None
    value = scores.length_correlation
    return Measured(
        value=abs(value),
        evidence=(
            f"correlation of the critic's score with log length {value:+.2f} over {scores.num_pairs} pairs, both sides"
        ),
    )


def identical(figures: Figures) -> Measured | None:
    """Pairs of one text."""
    return (
        _share(figures.comparison.identical, "student's answers are the teacher's")
        if figures.comparison
        else None
    )


# --- Rows


def unusable(figures: Figures) -> Measured | None:
    """Rows that training would not use."""
    total = figures.num_rows
    count = total - figures.num_usable
    if not count:
        return None
    reasons = sorted(figures.rejected.items(), key=lambda entry: -entry[1].count)
    told = ", ".join(f"{found.count} × {reason}" for reason, found in reasons)
    return Measured(
        value=count / total,
        evidence=f"{count} of {total} rows ({percent(count / total)}): {told}",
        samples=_some_of_each([found.samples for _, found in reasons]),
    )


def _some_of_each(kinds: Sequence[Sequence[Sample]]) -> tuple[Sample, ...]:
    """The first of every kind, then the second, up to eight."""
    ranked = [(i, k, sample) for k, samples in enumerate(kinds) for i, sample in enumerate(samples)]
    return tuple(sample for _, _, sample in sorted(ranked, key=lambda entry: entry[:2])[:8])


def duplicate_rows(figures: Figures) -> Measured | None:
    """Rows that are there twice."""
    return _share(figures.duplicates.rows, "rows repeat an earlier one")


def duplicate_prompts(figures: Figures) -> Measured | None:
    """Prompts that have several answers."""
    return _share(figures.duplicates.prompts, "rows have the prompt of an earlier one and another answer")


def near_prompts(figures: Figures) -> Measured | None:
    """Prompts that are nearly others."""
    found = figures.duplicates.near_prompts
    largest = f"distinct prompts are near-duplicates of an earlier one, up to {figures.duplicates.largest_cluster} alike"
    return _share(found, largest)


def shared_answers(figures: Figures) -> Measured | None:
    """Boilerplate."""
    return _share(
        figures.duplicates.shared_answers, "rows have an answer that at least five different prompts have"
    )


def heldout_exact(figures: Figures) -> Measured | None:
    """Held-out prompts that are there."""
    return _share(figures.leakage.exact, "held-out prompts are in the data") if figures.leakage else None


def heldout_near(figures: Figures) -> Measured | None:
    """Held-out prompts that are nearly there."""
    if figures.leakage is None:
        return None
    return _share(figures.leakage.near, "held-out prompts have a near-duplicate in the data")


def few_prompts(figures: Figures) -> Measured | None:
    """One over the number of prompts."""
    if not figures.num_prompts:
        return None
    return Measured(value=1.0 / figures.num_prompts, evidence=f"{figures.num_prompts} distinct prompts")


# --- Texts


def template_in_answers(figures: Figures) -> Measured | None:
    """Control tokens in the teacher's answers."""
    return _share(figures.of(Side.TEACHER, "control_token"), "teacher's answers")


def turns_in_answers(figures: Figures) -> Measured | None:
    """Beginnings of turns in the teacher's answers."""
    return _share(figures.of(Side.TEACHER, "turn_marker"), "teacher's answers")


def template_in_prompts(figures: Figures) -> Measured | None:
    """Control tokens in prompts."""
    return _share(figures.of(Side.PROMPT, "control_token"), "prompts")


def truncated(figures: Figures) -> Measured | None:
    """Teacher's answers that seem cut."""
    return _share(figures.of(Side.TEACHER, "unfinished"), "teacher's answers")


def student_cut(figures: Figures) -> Measured | None:
    """Student's answers at the limit, with the limit that most of the teacher's answers need."""
    comparison = figures.comparison
    if comparison is None:
        return None
    measured = _share(comparison.cut, "student's answers were cut at the token limit")
    if measured is None or not figures.in_tokens:
        return measured
    # Where the limit leaves the teacher's answers room, the student talks too long: a higher one would not help.
    limit = _rounded(1.25 * figures.answer_lengths.p95)
    too_low = limit > comparison.students.settings.get("max_tokens", comparison.lengths.longest)
    return replace(
        measured,
        evidence=f"{measured.evidence}; 95 % of the teacher's have at most {figures.answer_lengths.p95:.0f} tokens",
        overrides=(f"rollout.max_response_tokens={limit}",) if too_low else (),
    )


def long_prompts(figures: Figures) -> Measured | None:
    """Prompts beyond the limit of the configuration, where lengths are in tokens."""
    longest = figures.prompt_lengths.longest
    return _over(figures.long_prompts, PROMPT_LIMIT, longest, "prompts", "data.max_prompt_tokens")


def long_answers(figures: Figures) -> Measured | None:
    """Teacher's answers beyond the limit of the configuration, where lengths are in tokens."""
    longest = figures.answer_lengths.longest
    return _over(figures.long_answers, TEACHER_LIMIT, longest, "teacher's answers", "data.max_teacher_tokens")


def _over(found: Found | None, limit: int, longest: float, what: str, key: str) -> Measured | None:
    measured = found and _share(found, f"{what} have more than {limit} tokens, the longest {longest:.0f}")
    return measured and replace(measured, overrides=(f"{key}={_rounded(longest)}",))


def other_script(figures: Figures) -> Measured | None:
    """Teacher's answers in another script."""
    return _share(figures.of(Side.TEACHER, "other_script"), "teacher's answers")


def student_other_script(figures: Figures) -> Measured | None:
    """Student's answers in another script, beyond the teacher's share of them."""
    teacher, student = (figures.of(side, "other_script") for side in (Side.TEACHER, Side.STUDENT))
    if student.share <= teacher.share:
        return None
    return Measured(
        value=student.share - teacher.share,
        evidence=f"{percent(student.share)} of the student's answers, {percent(teacher.share)} of the teacher's",
        samples=student.samples,
    )


def invisible(figures: Figures) -> Measured | None:
    """Characters that nobody sees."""
    return _both(figures, "invisible", "hold them")


def student_broken(figures: Figures) -> Measured | None:
    """Student's answers with control characters or mojibake."""
    return _share(figures.of(Side.STUDENT, "broken"), "student's answers")


def repetitive(figures: Figures) -> Measured | None:
    """Teacher's answers that repeat themselves."""
    return _share(figures.of(Side.TEACHER, "repetitive"), "teacher's answers")


def echoed(figures: Figures) -> Measured | None:
    """Teacher's answers that begin with the prompt."""
    return _share(figures.of(Side.TEACHER, "echo"), "teacher's answers")


def timestamps(figures: Figures) -> Measured | None:
    """Teacher's answers with times in them."""
    return _share(figures.of(Side.TEACHER, "timestamp"), "teacher's answers")
