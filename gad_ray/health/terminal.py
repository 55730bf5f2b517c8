"""Diagnoses of runs and of critics on the terminal, and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gad_ray.findings import print_finding
from gad_ray.health import bands
from gad_ray.health.critic import (
    COLLAPSED_STD,
    EXTREME_VALUE,
    FAR_MEAN,
    PUNCTUATION_LIMIT,
    SIMILAR_LIMIT,
    CriticFigures,
    CriticVerdict,
    Moved,
)
from gad_ray.health.critic_texts import tell
from gad_ray.health.diagnosis import Diagnosis, Fired
from gad_ray.health.phrases import say
from gad_ray.health.texts import Language


def findings_to_json(fired: Sequence[Fired]) -> list[dict[str, object]]:
    """The rules that fired, as ``--json`` prints them."""
    return [
        {
            "rule": item.finding.rule,
            "severity": item.finding.severity.value,
            "steps": list(item.steps),
            "evidence": {
                "text": item.finding.evidence,
                "figures": dict(item.finding.values),
                "window": item.finding.window,
                "judged_on": item.finding.judged_on,
                "numbers_of_steps": item.finding.numbers,
                "at_the_end": item.lasting,
            },
            "meaning": item.finding.meaning,
            "advice": list(item.finding.overrides),
        }
        for item in fired
    ]


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print a diagnosis: the rules that fired, what is well, the verdict, and what to know of the source."""
    out = console or Console(highlight=False)
    language, history = diagnosis.language, diagnosis.history
    out.print(
        Text(
            say(
                "judged",
                language,
                place=history.place,
                kind=say(f"kind-{history.kind}", language),
                count=len(history.rows),
                first=history.rows[0].step,
                last=history.rows[-1].step,
            )
        ),
        soft_wrap=True,
    )
    if diagnosis.fired:
        print_fired(diagnosis.fired, language, out)
    else:
        out.print(Text(say("nothing-fired", language)))
    for line in diagnosis.observations:
        out.print(Text(f"+ {line}", style="green"))
    for line in diagnosis.course:
        out.print(Text(f"· {line}"), soft_wrap=not out.is_terminal)
    for line in diagnosis.notes:
        out.print(Text(f"· {line}", style="dim"), soft_wrap=not out.is_terminal)
    out.print(Text(say("verdict", language, verdict=diagnosis.verdict), style="bold"), soft_wrap=True)


def print_fired(fired: Sequence[Fired], language: Language, out: Console) -> None:
    """The rules that fired, each with its steps, its evidence and what it means, and the overrides below all of them."""
    for item in fired:
        finding = item.finding
        more = [f"{say('column-steps', language)} {_steps(item, language)}"]
        if finding.numbers is not None:
            first, last = finding.numbers
            more.append(say("numbers", language, first=first, last=last))
        severity = say(finding.severity.value, language)
        print_finding(finding, out, severity=severity, more=more, with_overrides=False)
        out.print()
    _print_overrides(fired, language, out)


def _steps(item: Fired, language: Language) -> str:
    held = say("held-on", language, first=item.steps[0], last=item.steps[-1], count=len(item.steps))
    return held if item.lasting else f"{held}; {say('over', language, last=item.steps[-1])}"


def _print_overrides(fired: Sequence[Fired], language: Language, out: Console) -> None:
    """The overrides, each on a line of its own, to be copied; of those that several rules give, the first alone."""
    told: dict[str, list[str]] = {}
    for item in fired:
        for override in item.finding.overrides:
            told.setdefault(override, []).append(item.finding.rule)
    if told:
        out.print(Text(f"{say('column-overrides', language)}:"))
    width = min(60, max((len(_quoted(override)) for override in told), default=0))
    for override, rules in told.items():
        line = Text.assemble(f"  {_quoted(override):<{width}}", (f"  # {', '.join(rules)}", "dim"))
        out.print(line, soft_wrap=True)


def _quoted(override: str) -> str:
    """As a shell takes it."""
    return f"'{override}'" if any(character in override for character in " [{") else override


def print_critic_verdict(
    directory: Path,
    data: str,
    figures: CriticFigures,
    verdict: CriticVerdict,
    left_out: dict[str, int],
    language: Language,
) -> None:
    """Print what became of judging a critic by itself: its figures, the rules that fired, what is well, the verdict.

    Args:
        directory: The critic's.
        data: File of the rows that it was judged on.
        figures: What was measured.
        verdict: What that comes to.
        left_out: Rows that could not be looked at, by reason.
        language: Of the texts.
    """
    out = Console(highlight=False)
    heading = tell(
        "judged",
        language,
        place=directory,
        data=data,
        steps=figures.step,
        rows=figures.num_rows,
        pairs=figures.num_pairs,
    )
    out.print(Text(heading), soft_wrap=True)
    table = Table()
    for column in ("figure", "value", "accepted"):
        table.add_column(tell(f"column-{column}", language), overflow="fold")
    for phrase, value, accepted in _shown(figures):
        table.add_row(tell(phrase, language), value, accepted)
    out.print(table)
    if verdict.fired:
        print_fired(verdict.fired, language, out)
    for line in verdict.observations:
        out.print(Text(f"+ {line}", style="green"))
    notes = [tell("left-out", language, **left_out)] if any(left_out.values()) else []
    notes += [] if figures.num_pairs else [tell("no-students", language)]
    for line in notes:
        out.print(Text(f"· {line}", style="dim"), soft_wrap=not out.is_terminal)
    out.print(Text(say("verdict", language, verdict=verdict.verdict), style="bold"), soft_wrap=True)


def _shown(figures: CriticFigures) -> Iterator[tuple[str, str, str]]:
    """Phrase, value and what is accepted of every figure."""
    tokens, scores = figures.tokens, figures.scores
    if figures.num_nonfinite:
        yield "not-finite", str(figures.num_nonfinite), "0"
    yield "token-mean", f"{tokens.mean:.3f}", ""
    yield "token-std", f"{tokens.std:.3f}", f"≥ {COLLAPSED_STD:g}"
    yield "token-max", f"{tokens.largest:.3f}", f"≤ {EXTREME_VALUE:g}"
    yield "token-large", f"{tokens.share_large:.2%}", "0 %"
    yield "token-small", f"{tokens.share_small:.2%}", ""
    yield "score-mean", f"{figures.score_mean:.3f}", f"−{FAR_MEAN:g} … {FAR_MEAN:g}"
    yield "score-std", f"{figures.score_std:.3f}", f"≥ {COLLAPSED_STD:g}"
    yield "score-max", f"{figures.score_largest:.3f}", f"≤ {EXTREME_VALUE:g}"
    if "critic/d_acc" in scores:
        yield "d-acc", f"{scores['critic/d_acc']:.3f}", f"{bands.D_ACC[0]} … {bands.D_ACC_LIMIT}"
        yield "score-diff", f"{scores['critic/score_diff']:.3f}", "0.5 … 5"
    if "critic/score_separation" in scores:
        yield "score-separation", f"{scores['critic/score_separation']:.3f}", "1 … 2"
    yield "same-call", f"{figures.same_call:g}", "0"
    yield "same-apart", f"{figures.same_apart:.2g}", f"≤ {figures.same_tolerance:g}"
    for phrase, moved, limit in (
        ("punctuation", figures.punctuation, PUNCTUATION_LIMIT),
        ("similar", figures.similar, SIMILAR_LIMIT),
    ):
        if moved is not None:
            yield phrase, _sizes(moved), f"95 % < {limit:g}"


def _sizes(moved: Moved) -> str:
    return f"{moved.mean:.3f} / {moved.p95:.3f} / {moved.largest:.3f}"
