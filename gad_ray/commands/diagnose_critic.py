"""``gad-ray diagnose --critic DIR --data FILE``: is this critic fit to be a reward, on one's own data?"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gad_ray.commands.diagnose import exit_code, findings_to_json, print_fired
from gad_ray.critics.store import open_value_head
from gad_ray.data.layout import Layout
from gad_ray.data.rows import Rejection
from gad_ray.data.sources import resolve_sources
from gad_ray.errors import DataError
from gad_ray.evaluation.critic_check import CheckedRow, check_critic, fitting_rows
from gad_ray.health.critic import (
    COLLAPSED_STD,
    EXTREME_VALUE,
    FAR_MEAN,
    PUNCTUATION_LIMIT,
    SIMILAR_LIMIT,
    CriticFigures,
    CriticVerdict,
    Moved,
    judge_critic,
)
from gad_ray.health.critic_texts import tell
from gad_ray.health.phrases import say
from gad_ray.health.texts import Language
from gad_ray.quality.rows import read_sided_rows


def diagnose_critic(
    directory: Path, data: str, *, rows: int, language: Language, as_json: bool, fail_on: str
) -> int:
    """Judge a critic on rows of data, and print the verdict.

    Args:
        directory: An exported critic, or a checkpoint in its run.
        data: Rows of a prompt and the teacher's answer, with a student's where there is one; a run's score records too.
        rows: Rows that are looked at, from all over the file.
        language: Of the texts.
        as_json: Print figures and findings as JSON.
        fail_on: Least severity for which the exit code is 1.

    Returns:
        0 when the critic was judged, 1 where ``fail_on`` asks for it.

    Raises:
        GadError: If the critic cannot be opened, or no row can be used.
    """
    found, num_unusable = _read(data)
    if not found:
        raise DataError(
            f"holds no usable row: {num_unusable} were refused",
            where=data,
            hint="give rows with content and teacher_response; gad-ray data report says what is wrong with each",
        )
    opened = open_value_head(directory)
    count = min(rows, len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    fitting = fitting_rows(opened.model, chosen)
    if not fitting:
        raise DataError(
            f"no row is within the critic's limit of {opened.model.encoder.max_tokens} tokens",
            where=data,
            hint="give shorter rows, or a critic of a larger critic.max_tokens",
        )
    left_out = {"unusable": num_unusable, "too_long": len(chosen) - len(fitting)}
    figures = check_critic(opened, fitting)
    verdict = judge_critic(figures, language=language)
    if as_json:
        told = {
            "critic": str(directory),
            "data": data,
            "left_out": left_out,
            "figures": _plain(asdict(figures)),
            "findings": findings_to_json(verdict.fired),
            "verdict": verdict.verdict,
        }
        sys.stdout.write(json.dumps(told, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    else:
        _print(directory, data, figures, verdict, left_out, language)
    return exit_code(verdict.fired, fail_on=fail_on)


def _read(data: str) -> tuple[list[CheckedRow], int]:
    """The usable rows, and how many were not."""
    rows: list[CheckedRow] = []
    num_unusable = 0
    for source in resolve_sources([data]):
        for row in read_sided_rows(source, Layout()):
            if isinstance(row, Rejection):
                num_unusable += 1
            else:
                example = row.example
                rows.append(
                    CheckedRow(
                        messages=example.messages, teacher=example.teacher_response, student=row.student
                    )
                )
    return rows, num_unusable


def _plain(value: object) -> object:
    """Of values for JSON, what is not a number is null."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in cast("dict[str, object]", value).items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(
    directory: Path,
    data: str,
    figures: CriticFigures,
    verdict: CriticVerdict,
    left_out: dict[str, int],
    language: Language,
) -> None:
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
        yield "d-acc", f"{scores['critic/d_acc']:.3f}", "0.65 … 0.95"
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
