"""The rows of the sample browser: prompts with both sides' texts, scores, and values of single tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from gad_ray.observability.summary import SampleRow
from gad_ray.report.curves import number
from gad_ray.report.view import RunView

Json = dict[str, Any]

MAX_TEXT = 6000
"""Characters of a text that are shown."""

MAX_CHARACTERS = 3_000_000
"""Of all texts together: what bounds the size of the page."""

MAX_HELDOUT = 200


def sample_entries(view: RunView) -> list[Json]:
    """What the browser shows: records of training steps and evaluations, then held-out prompts before and after.

    Rows are left out from the end where all texts together would be too long.
    """
    entries = [_recorded(row, "training") for row in view.records.samples]
    entries += [_recorded(row, "evaluation") for row in view.evaluated.samples]
    entries += [_heldout(row) for row in view.heldout[:MAX_HELDOUT]]
    kept: list[Json] = []
    left = MAX_CHARACTERS
    for entry in _alternating(entries):
        left -= sum(len(message["content"]) for message in entry["prompt"])
        left -= sum(len(side["text"]) for side in entry["sides"])
        if left < 0:
            break
        kept.append(entry)
    return sorted(kept, key=lambda entry: entry["order"])


def _alternating(entries: Sequence[Json]) -> list[Json]:
    """The entries with a number for their order, every eighth first: what is cut is cut all over the run."""
    numbered = [{**entry, "order": order} for order, entry in enumerate(entries)]
    return sorted(numbered, key=lambda entry: (entry["order"] % 8, entry["order"]))


def _recorded(row: Mapping[str, Any], source: str) -> Json:
    teacher, student = number(row["teacher_score"]), number(row["student_score"])
    sides = [
        _side("teacher", str(row["teacher_response"]), teacher, row, "teacher"),
        _side("student", str(row["student_response"]), student, row, "student"),
    ]
    details = {
        "tokens": row["response_tokens"],
        "ended": "cut at the limit" if row["stop_reason"] == "length" else "by itself",
        "policy version": row.get("policy_version"),
        "critic version": row.get("critic_version"),
        "temperature": row.get("temperature"),
        "top p": row.get("top_p"),
        "repetition penalty": row.get("repetition_penalty"),
        "token limit": row.get("max_tokens"),
        "seed": row.get("seed"),
        "critic's fingerprint": str(row.get("fingerprint") or "")[:16],
    }
    return {
        "source": source,
        "step": row["step"],
        "id": row["example_id"],
        "prompt": _messages(str(row["prompt"])),
        "sides": sides,
        "gap": _gap(teacher, student),
        "details": {
            name: number(v) if isinstance(v, float) else v for name, v in details.items() if v is not None
        },
    }


def _heldout(row: SampleRow) -> Json:
    return {
        "source": "held-out",
        "step": None,
        "id": "",
        "prompt": [{"role": "user", "content": _shortened(row.prompt)}],
        "sides": [
            _side("teacher", row.teacher, number(row.teacher_score)),
            _side("student before", row.before, number(row.before_score)),
            _side("student after", row.after, number(row.after_score)),
        ],
        "gap": _gap(number(row.teacher_score), number(row.after_score)),
        "details": {},
    }


def _gap(teacher: float | None, student: float | None) -> float | None:
    return None if teacher is None or student is None else number(teacher - student)


def _side(
    label: str, text: str, score: float | None, row: Mapping[str, Any] | None = None, prefix: str = ""
) -> Json:
    side: Json = {"label": label, "text": _shortened(text), "score": score}
    if row is not None:
        ends, values = row.get(f"{prefix}_token_ends"), row.get(f"{prefix}_values")
        if ends and values and len(ends) == len(values):
            side["pieces"] = pieces(side["text"], ends, values)
    return side


def pieces(text: str, ends: Sequence[int], values: Sequence[float]) -> list[list[Any]]:
    """A text cut into its tokens, each with its value.

    A character that several tokens share is one piece with the mean of their values.

    Args:
        text: The text.
        ends: For every token the index behind its last character.
        values: For every token its value.

    Returns:
        [piece, value], in order; together the pieces are the text. Text behind the last token has no value.
    """
    by_end: dict[int, list[float]] = {}
    for end, value in zip(ends, values, strict=True):
        by_end.setdefault(max(1, end), []).append(value)
    cut: list[list[Any]] = []
    start = 0
    for end, shared in by_end.items():
        if start < end <= len(text):
            cut.append([text[start:end], number(sum(shared) / len(shared))])
            start = end
    if start < len(text):
        cut.append([text[start:], None])
    return cut


def _messages(prompt: str) -> list[Json]:
    try:
        content: object = json.loads(prompt)
    except ValueError:
        content = None
    if isinstance(content, list):
        messages = cast("list[Any]", content)
        if all(isinstance(message, dict) and {"role", "content"} <= set(message) for message in messages):
            return [{"role": str(m["role"]), "content": _shortened(str(m["content"]))} for m in messages]
    return [{"role": "prompt", "content": _shortened(prompt)}]


def _shortened(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]} … [{len(text) - MAX_TEXT} more characters]"
