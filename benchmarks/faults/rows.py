"""The study's data: packaged rows that decode together, and the ways in which data are made sick."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.faults.case import Row, Rows
from gad_ray.batch import Example
from gad_ray.config import RunConfig
from gad_ray.data.dataset import load_dataset
from gad_ray.models.chat import configured_chat_format
from gad_ray.models.source import resolve_model
from gad_ray.observability.files import write_text

_NUM_LENGTHS = 3
_FEW = 4
_SHARED = 16
_CUT_WORDS = 3
_MARK = " [END]"


def study_rows(config: RunConfig, *, quarantine_path: Path) -> list[Row]:
    """The rows of a configuration's data whose prompts have one of the few commonest lengths.

    With few lengths little is padded, in rollouts as in updates: a step takes less time.

    Args:
        config: Names the data, and the policy whose tokens are counted.
        quarantine_path: File for rows that cannot be used.

    Raises:
        GadError: If the data or the tokenizer cannot be read.
    """
    model = config.policy.model
    chat = configured_chat_format(resolve_model(model.model), model)
    # Nothing is held out here: every run draws for itself.
    whole = config.data.model_copy(
        update={
            "heldout": (),
            "heldout_prompts": 0,
            "long_prompts": "skip",
            "max_quarantined_fraction": 1.0,
        }
    )
    data = load_dataset(
        whole,
        count_prompt_tokens=lambda messages: len(chat.prompt_ids(messages)),
        count_response_tokens=lambda text: len(chat.response_ids(text)),
        quarantine_path=quarantine_path,
    )
    lengths = [len(chat.prompt_ids(example.messages)) for example in data.train]
    # Of lengths that are equally common the shorter one.
    ranked = sorted(Counter(lengths).items(), key=lambda entry: (-entry[1], entry[0]))
    kept = {length for length, _ in ranked[:_NUM_LENGTHS]}
    return [_row(example) for example, n in zip(data.train, lengths, strict=True) if n in kept]


def _row(example: Example) -> Row:
    return {
        "id": example.id,
        "content": example.messages[-1].content,
        "teacher_response": example.teacher_response,
    }


def write_rows(path: Path, rows: Iterable[Row]) -> str:
    """Write rows as JSON Lines; returns the path as a setting takes it."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def few_prompts(rows: Sequence[Row]) -> Rows:
    """A handful of rows to train on; what is held out comes from the others."""
    return Rows(train=rows[:_FEW], heldout=rows[_FEW:])


def cut_teacher(rows: Sequence[Row]) -> Rows:
    """The teacher's texts cut to their first few words."""
    return Rows(
        [{**row, "teacher_response": " ".join(row["teacher_response"].split()[:_CUT_WORDS])} for row in rows]
    )


def marked_teacher(rows: Sequence[Row]) -> Rows:
    """A mark at the end of every teacher's text, as a template leaves one."""
    return Rows([{**row, "teacher_response": row["teacher_response"] + _MARK} for row in rows])


def shared_prompts(rows: Sequence[Row]) -> Rows:
    """Prompts that are held out and trained on, under other ids."""
    return Rows(train=rows, heldout=[{**row, "id": f"again-{row['id']}"} for row in rows[:_SHARED]])
