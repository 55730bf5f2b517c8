"""A judge's verdicts on two policies' answers, each pair shown in both orders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gad_ray.batch import Example, Message
from gad_ray.data.collect import collect
from gad_ray.data.collect_settings import CollectSettings
from gad_ray.errors import ConfigError
from gad_ray.evaluation.intervals import Interval, bootstrap_mean
from gad_ray.observability.files import write_text

_QUESTION = """Two answers to the same request follow. Say which one is better: more correct, more helpful, better \
written. Length by itself is no merit.

[Request]
{request}

[Answer A]
{first}

[Answer B]
{second}

Reply with one letter and nothing else: A, B, or T for a tie."""

_VERDICT = re.compile(r"\b([ABT])\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What a judge made of two policies' answers.

    Attributes:
        first: One policy's name.
        second: The other's.
        win_rate: Of ``first`` over both orders; a tie counts half. Interval over prompts.
        win_rate_shown_first: The same where its answer was shown first.
        win_rate_shown_second: Where it was shown second: far apart from the one above, the judge goes by place.
        num_prompts: Prompts judged in both orders.
        num_unreadable: Verdicts that were no A, B or T, or did not come; their prompts are left out.
    """

    first: str
    second: str
    win_rate: Interval
    win_rate_shown_first: float
    win_rate_shown_second: float
    num_prompts: int
    num_unreadable: int


def hold_contest(
    names: tuple[str, str],
    sides: tuple[Mapping[str, str], Mapping[str, str]],
    examples: Mapping[str, Example],
    *,
    judge: CollectSettings,
    out: Path,
) -> Contest:
    """Ask for a verdict on every prompt that both have answered, in both orders.

    Questions and verdicts stay in ``out``: called again after a break, only what is missing is asked.

    Args:
        names: Of the two policies.
        sides: Prompt's id → answer, of each.
        examples: Prompt's id → prompt.
        judge: Whom to ask; ``input`` and ``output`` are set here.
        out: An existing directory.

    Raises:
        GadError: If the endpoint cannot be used, or gave no verdict that can be read.
    """
    both = [example_id for example_id in sides[0] if example_id in sides[1]]
    place = f"judge-{names[0]}-{names[1]}"
    questions = [
        {
            "id": f"{example_id}/{order}",
            "content": _question(examples[example_id].messages, sides, example_id, order),
        }
        for example_id in both
        for order in ("12", "21")
    ]
    source = out / f"{place}.jsonl"
    write_text(source, "".join(json.dumps(question, ensure_ascii=False) + "\n" for question in questions))
    report = collect(replace(judge, input=source, output=out / f"{place}.parquet"))
    found = pq.read_table(report.output, columns=["id", "teacher_response"]).to_pydict()
    verdicts = dict(zip(found["id"], found["teacher_response"], strict=True))
    wins = [
        [_win(verdicts.get(f"{example_id}/{order}"), order) for order in ("12", "21")] for example_id in both
    ]
    readable = np.array([row for row in wins if None not in row], dtype=np.float64).reshape(-1, 2)
    if not len(readable):
        raise ConfigError(
            "the judge gave no verdict that can be read", where=str(report.output), hint="ask another model"
        )

    return Contest(
        first=names[0],
        second=names[1],
        win_rate=bootstrap_mean(readable.mean(axis=1), seed=0),
        win_rate_shown_first=float(readable[:, 0].mean()),
        win_rate_shown_second=float(readable[:, 1].mean()),
        num_prompts=len(readable),
        num_unreadable=sum(win is None for row in wins for win in row),
    )


def _question(
    messages: Sequence[Message],
    sides: tuple[Mapping[str, str], Mapping[str, str]],
    example_id: str,
    order: str,
) -> str:
    request = "\n\n".join(
        message.content if len(messages) == 1 else f"{message.role}: {message.content}"
        for message in messages
    )
    first, second = (sides[int(place) - 1][example_id] for place in order)
    return _QUESTION.format(request=request, first=first, second=second)


def _win(verdict: str | None, order: str) -> float | None:
    """1 if the first policy won, 0 if the second did, ½ for a tie; None if there is no verdict."""
    letters = _VERDICT.findall(verdict or "")
    if not letters:
        return None
    if letters[-1] == "T":
        return 0.5
    shown_first_won = letters[-1] == "A"
    return float(shown_first_won == (order == "12"))
