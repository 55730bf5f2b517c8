"""Score records: what was compared in a step, and what the critic gave it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gad_ray.batch import (
    Fingerprint,
    Message,
    PromptBatch,
    RewardBatch,
    RolloutBatch,
    ScoreBatch,
    TokenValues,
)
from gad_ray.errors import DataError
from gad_ray.observability.files import replacing

RECORD_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("example_id", pa.string()),
        ("prompt", pa.string()),
        ("teacher_response", pa.string()),
        ("student_response", pa.string()),
        ("teacher_score", pa.float32()),
        ("student_score", pa.float32()),
        ("reward", pa.float32()),
        ("response_tokens", pa.int32()),
        ("stop_reason", pa.string()),
        ("policy_version", pa.int64()),
        ("critic_version", pa.int64()),
        ("fingerprint", pa.string()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("repetition_penalty", pa.float64()),
        ("max_tokens", pa.int64()),
        ("seed", pa.int64()),
        ("teacher_values", pa.list_(pa.float32())),
        ("teacher_token_ends", pa.list_(pa.int32())),
        ("student_values", pa.list_(pa.float32())),
        ("student_token_ends", pa.list_(pa.int32())),
    ],
    metadata={"gad_ray.format": "score-records/1"},
)
"""Columns of a record file. ``prompt`` is the conversation as JSON, ``response_tokens`` the length of the
response in the policy's tokens, without the end of turn, ``reward`` null for a response without one.

The last four are null but for the rows whose tokens' values were kept: the critic's value of every token of the
response's text, in the critic's tokenizer, and the index behind its last character.
"""

_FINGERPRINT = b"gad_ray.fingerprint"
_FILE_NAME = re.compile(r"step-(\d{6,})\.parquet")


class ScoreRecordWriter:
    """Writes one Parquet file per step into a directory.

    Args:
        directory: Where the files go; made if absent.
        max_rows_per_step: Rows kept of one step, in the order of the batch.
    """

    def __init__(self, directory: Path, *, max_rows_per_step: int) -> None:
        if max_rows_per_step < 1:
            raise ValueError(f"max_rows_per_step must be at least 1, not {max_rows_per_step}")
        self._directory = directory
        self._max_rows = max_rows_per_step
        directory.mkdir(parents=True, exist_ok=True)

    def write(
        self,
        step: int,
        prompts: PromptBatch,
        rollouts: RolloutBatch,
        scores: ScoreBatch,
        rewards: RewardBatch | None = None,
    ) -> Path:
        """Write the records of a step, replacing those of an earlier attempt at it.

        Args:
            step: The step.
            prompts: Its prompts.
            rollouts: The responses to them.
            scores: Their scores.
            rewards: Their rewards; None where nothing is trained on them.

        Returns:
            The file, complete and on disk.

        Raises:
            ValueError: If the scores are not those of the responses, or a response answers none of the prompts.
        """
        if len(scores) != len(rollouts):
            raise ValueError(f"{len(scores)} scores for {len(rollouts)} responses")
        examples = {example.id: example for example in prompts.examples}
        unknown = set(rollouts.example_ids) - set(examples)
        if unknown:
            raise ValueError(f"a response answers '{min(unknown)}', which is not among the step's prompts")
        sampling = rollouts.sampling
        lengths = rollouts.text_lengths
        values = {one.position: one for one in scores.token_values}
        rows = [
            {
                "step": step,
                "example_id": example_id,
                "prompt": _to_json(examples[example_id].messages),
                "teacher_response": examples[example_id].teacher_response,
                "student_response": rollouts.texts[i],
                "teacher_score": float(scores.teacher[i]),
                "student_score": float(scores.student[i]),
                "reward": None if rewards is None or not rewards.usable[i] else float(rewards.total[i]),
                "response_tokens": int(lengths[i]),
                "stop_reason": rollouts.stop_reasons[i].value,
                "policy_version": int(rollouts.policy_versions[i]),
                "critic_version": scores.critic_version,
                "fingerprint": "" if scores.fingerprint is None else scores.fingerprint.digest,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "repetition_penalty": sampling.repetition_penalty,
                "max_tokens": sampling.max_tokens,
                "seed": sampling.seed,
                **_values(values.get(i)),
            }
            for i, example_id in enumerate(rollouts.example_ids[: self._max_rows])
        ]
        path = self._directory / f"step-{step:06d}.parquet"
        with replacing(path) as temporary:
            table = pa.Table.from_pylist(rows, schema=_stamped(scores.fingerprint))
            pq.write_table(table, temporary, compression="zstd")
        return path

    def discard_after(self, step: int) -> list[Path]:
        """Remove the records of steps later than ``step``, which a resumed run will take again.

        Returns:
            The files removed, by step.
        """
        removed = [(number, path) for number, path in record_files(self._directory) if number > step]
        for _, path in removed:
            path.unlink()
        return [path for _, path in removed]


def record_files(directory: Path) -> list[tuple[int, Path]]:
    """Step and path of every file of score records in a directory, by step; none where there is no directory."""
    if not directory.is_dir():
        return []
    return sorted(
        (int(match[1]), path) for path in directory.iterdir() if (match := _FILE_NAME.fullmatch(path.name))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRecord:
    """One pair as it was compared, and its scores."""

    example_id: str
    messages: tuple[Message, ...]
    teacher_response: str
    student_response: str
    teacher_score: float
    student_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecords:
    """The records of one step.

    Attributes:
        path: Their file.
        step: The step.
        fingerprint: Of the critic that gave the scores; None where it was not taken.
        critic_version: Optimiser steps that it had taken.
    """

    path: Path
    step: int
    fingerprint: Fingerprint | None
    critic_version: int

    def rows(self) -> list[ScoreRecord]:
        """Read the pairs.

        Raises:
            DataError: If the file cannot be read.
        """
        names = [field.name for field in fields(ScoreRecord) if field.name != "messages"]
        try:
            rows = pq.read_table(self.path, columns=[*names, "prompt"]).to_pylist()
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise _unreadable(self.path, error) from None
        return [
            ScoreRecord(
                messages=tuple(Message(**message) for message in json.loads(row.pop("prompt"))), **row
            )
            for row in rows
        ]


def find_records(directory: Path) -> list[StepRecords]:
    """What a directory holds of score records, by step; their pairs are not read yet.

    Raises:
        DataError: If a file cannot be read.
    """
    return [_peek(path, step) for step, path in record_files(directory)]


def _peek(path: Path, step: int) -> StepRecords:
    try:
        with pq.ParquetFile(path) as file:
            stamp = (file.schema_arrow.metadata or {}).get(_FINGERPRINT)
            versions = file.read(columns=["critic_version"])["critic_version"]
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise _unreadable(path, error) from None
    return StepRecords(
        path=path,
        step=step,
        fingerprint=None if stamp is None else Fingerprint(**json.loads(stamp)),
        critic_version=int(versions[0].as_py()) if len(versions) else 0,
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"the score records cannot be read: {error}", where=str(path), hint="remove the file, or put it back"
    )


def _stamped(fingerprint: Fingerprint | None) -> Any:
    """The schema with the fingerprint's parts beside the format."""
    if fingerprint is None:
        return RECORD_SCHEMA
    parts = {_FINGERPRINT: json.dumps(asdict(fingerprint)).encode()}
    return RECORD_SCHEMA.with_metadata({**(RECORD_SCHEMA.metadata or {}), **parts})


def _values(kept: TokenValues | None) -> dict[str, list[float] | list[int] | None]:
    return {
        "teacher_values": None if kept is None else kept.teacher.tolist(),
        "teacher_token_ends": None if kept is None else kept.teacher_ends.tolist(),
        "student_values": None if kept is None else kept.student.tolist(),
        "student_token_ends": None if kept is None else kept.student_ends.tolist(),
    }


def _to_json(messages: tuple[Message, ...]) -> str:
    return json.dumps([{"role": m.role, "content": m.content} for m in messages], ensure_ascii=False)
