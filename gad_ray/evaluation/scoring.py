"""Scoring rows and answers with any critic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from gad_ray.activity import activity
from gad_ray.batch import PromptBatch, ScoreBatch
from gad_ray.critics import Critic
from gad_ray.critics.store import KEY_VARIABLE, open_critic
from gad_ray.data.validate import parse_prompt
from gad_ray.errors import DataError
from gad_ray.models.pairs import Pair

_RESPONSE_FIELDS = ("response", "teacher_response")


def score_rows(
    source: str | Path, rows: Sequence[Mapping[str, object]], *, key_env: str = KEY_VARIABLE
) -> Iterator[dict[str, object]]:
    """Score every row's response to its prompt.

    Args:
        source: Directory of an exported critic, or URL of an endpoint.
        key_env: Environment variable with the endpoint's key, where it wants one.
        rows: ``content``, ``prompt`` or ``messages``, and ``response`` or ``teacher_response``.

    Yields:
        Each row with ``score`` (float32; compares only within one prompt) and the critic's ``fingerprint``.

    Raises:
        DataError: If a row cannot be used, by its number, before any is scored.
        GadError: If there is no such critic, or it cannot be reached.
    """
    pairs = pairs_of(rows)
    with activity(f"opening the critic {source}"):
        critic = open_critic(source, key_env=key_env)
    with activity(f"scoring {len(pairs)} pairs with {critic.where}"):
        scores, fingerprint = critic.score(pairs), critic.fingerprint().digest
    for row, score in zip(rows, scores, strict=True):
        yield {**row, "score": float(score), "fingerprint": fingerprint}


def pairs_of(rows: Sequence[Mapping[str, object]]) -> list[Pair]:
    """The pairs of rows such as :func:`score_rows` takes.

    Raises:
        DataError: If a row cannot be used, by its number.
    """
    return [_pair(row, number) for number, row in enumerate(rows, start=1)]


def score_texts(
    critic: Critic, prompts: PromptBatch, answers: Sequence[Sequence[tuple[str, str]]]
) -> list[ScoreBatch]:
    """Score answers of one or more policies to the same prompts, in one call: the teacher's text is scored once.

    Args:
        critic: Gives the scores.
        prompts: The prompts with the teacher's text.
        answers: The answers of each policy: id of the prompt, and text.
    """
    examples = {example.id: example for example in prompts.examples}
    pairs: list[Pair] = []
    for batch in answers:
        owners = [examples[example_id] for example_id, _ in batch]
        pairs += [Pair(e.messages, e.teacher_response) for e in owners]
        pairs += [Pair(e.messages, text) for e, (_, text) in zip(owners, batch, strict=True)]
    scores = critic.score(pairs)
    parts = np.split(scores, np.cumsum([n for batch in answers for n in (len(batch), len(batch))])[:-1])
    return [
        ScoreBatch(teacher=teacher, student=student, critic_version=critic.step)
        for teacher, student in zip(parts[::2], parts[1::2], strict=True)
    ]


def _pair(row: Mapping[str, object], number: int) -> Pair:
    where = f"row {number}"
    messages = parse_prompt(row, where=where)
    given = [name for name in _RESPONSE_FIELDS if row.get(name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "neither"
        raise DataError(
            f"needs one of response and teacher_response, has {found}", where=where, hint="give one"
        )
    response = row[given[0]]
    if not isinstance(response, str):
        raise DataError(
            f"{given[0]} is a {type(response).__name__}, not a string", where=where, hint="give text"
        )
    if any(0xD800 <= ord(character) <= 0xDFFF for character in response):
        raise DataError(
            f"{given[0]} holds a lone surrogate", where=where, hint="save the file as valid Unicode"
        )
    return Pair(messages, response)
