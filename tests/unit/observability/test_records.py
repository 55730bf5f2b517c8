from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gad_ray.batch import (
    Example,
    Fingerprint,
    Message,
    PromptBatch,
    Ragged,
    RewardBatch,
    RolloutBatch,
    SamplingSettings,
    ScoreBatch,
    StopReason,
    TokenValues,
)
from gad_ray.errors import DataError
from gad_ray.observability.records import RECORD_SCHEMA, ScoreRecord, ScoreRecordWriter, find_records

FINGERPRINT = Fingerprint(weights="w", head="h", template="t", tokenizer="k", pooling="p", dtype="float32")
PROMPTS = PromptBatch(
    step=12,
    examples=(
        Example(
            id="a",
            messages=(Message(role="system", content="Kurz."), Message(role="user", content="为什么?")),
            teacher_response="Darum.",
        ),
        Example(id="b", messages=(Message(role="user", content="Why?"),), teacher_response="Because."),
    ),
)


def rollouts(*, ids: tuple[str, ...] = ("b", "b", "a", "a")) -> RolloutBatch:
    lengths = range(1, len(ids) + 1)
    tokens = Ragged.from_rows([[5] * n for n in lengths], np.int32)
    return RolloutBatch(
        step=12,
        example_ids=ids,
        texts=tuple(f"answer {i}" for i in range(len(ids))),
        prompt_tokens=Ragged.from_rows([[1, 2]] * len(ids), np.int32),
        response_tokens=tokens,
        logprobs=Ragged(values=np.full(len(tokens.values), -1.0, dtype=np.float32), offsets=tokens.offsets),
        stop_reasons=tuple(StopReason.STOP if n % 2 else StopReason.LENGTH for n in lengths),
        policy_versions=np.full(len(ids), 3),
        sampling=SamplingSettings(
            num_responses=2, temperature=0.6, top_p=0.9, repetition_penalty=1.2, max_tokens=64, seed=99
        ),
        teacher_lengths=np.full(len(ids), 7, dtype=np.int32),
    )


def scores(count: int = 4) -> ScoreBatch:
    return ScoreBatch(
        student=np.linspace(-1.1, 0.7, count).astype(np.float32),
        teacher=np.full(count, 1.3, dtype=np.float32),
        critic_version=8,
        fingerprint=FINGERPRINT,
    )


def test_a_record_holds_what_was_compared_and_exactly_what_it_scored(tmp_path: Path) -> None:
    total = np.asarray([0.5, np.nan, -0.25, 1.0], dtype=np.float32)
    rewards = RewardBatch(step=12, total=total, discriminator=np.zeros(4, np.float32), format=total)
    writer = ScoreRecordWriter(tmp_path, max_rows_per_step=64)
    path = writer.write(12, PROMPTS, rollouts(), scores(), rewards)
    assert path == tmp_path / "step-000012.parquet"
    table = pq.read_table(path)
    assert table.schema.equals(RECORD_SCHEMA)
    rows = table.to_pylist()
    assert [row["example_id"] for row in rows] == ["b", "b", "a", "a"]
    assert [row["reward"] for row in rows] == [0.5, None, -0.25, 1.0]
    np.testing.assert_array_equal(table["student_score"].to_numpy(), scores().student)
    third = rows[2]
    assert json.loads(third.pop("prompt")) == [
        {"role": "system", "content": "Kurz."},
        {"role": "user", "content": "为什么?"},
    ]
    assert third.pop("teacher_score") == pytest.approx(1.3)
    assert third.pop("student_score") == pytest.approx(0.1)
    assert third == {
        "step": 12,
        "example_id": "a",
        "teacher_response": "Darum.",
        "student_response": "answer 2",
        "reward": -0.25,
        "response_tokens": 2,
        "stop_reason": "stop",
        "policy_version": 3,
        "critic_version": 8,
        "fingerprint": FINGERPRINT.digest,
        "temperature": 0.6,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "max_tokens": 64,
        "seed": 99,
        "teacher_values": None,
        "teacher_token_ends": None,
        "student_values": None,
        "student_token_ends": None,
    }


def test_values_of_tokens_stand_with_the_responses_they_were_kept_for(tmp_path: Path) -> None:
    kept = TokenValues(
        position=2,
        teacher=np.asarray([0.5], dtype=np.float32),
        teacher_ends=np.asarray([6], dtype=np.int32),
        student=np.asarray([1.0, -2.0], dtype=np.float32),
        student_ends=np.asarray([6, 8], dtype=np.int32),
    )
    with_values = dataclasses.replace(scores(), token_values=(kept,))
    path = ScoreRecordWriter(tmp_path, max_rows_per_step=64).write(12, PROMPTS, rollouts(), with_values)
    rows = pq.read_table(path).to_pylist()
    assert [row["student_values"] for row in rows] == [None, None, [1.0, -2.0], None]
    assert [row["student_token_ends"] for row in rows] == [None, None, [6, 8], None]
    assert (rows[2]["teacher_values"], rows[2]["teacher_token_ends"]) == ([0.5], [6])


def test_no_more_rows_are_kept_than_asked_for(tmp_path: Path) -> None:
    path = ScoreRecordWriter(tmp_path, max_rows_per_step=3).write(12, PROMPTS, rollouts(), scores())
    assert pq.read_table(path)["student_response"].to_pylist() == ["answer 0", "answer 1", "answer 2"]


def test_a_step_taken_again_replaces_its_records_and_leaves_nothing_else(tmp_path: Path) -> None:
    writer = ScoreRecordWriter(tmp_path, max_rows_per_step=64)
    writer.write(12, PROMPTS, rollouts(), scores())
    path = writer.write(12, PROMPTS, rollouts(ids=("a",)), scores(1))
    assert list(tmp_path.iterdir()) == [path]
    assert pq.read_table(path).num_rows == 1


def test_resuming_drops_the_records_of_later_steps_only(tmp_path: Path) -> None:
    writer = ScoreRecordWriter(tmp_path, max_rows_per_step=1)
    paths = {step: writer.write(step, PROMPTS, rollouts(), scores()) for step in (9, 10, 11, 1_000_000)}
    (tmp_path / "notes.txt").write_text("mine")
    assert writer.discard_after(10) == [paths[11], paths[1_000_000]]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "notes.txt",
        "step-000009.parquet",
        "step-000010.parquet",
    ]


def test_scores_of_other_responses_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    writer = ScoreRecordWriter(tmp_path, max_rows_per_step=64)
    with pytest.raises(ValueError, match="3 scores for 4 responses"):
        writer.write(12, PROMPTS, rollouts(), scores(3))
    with pytest.raises(ValueError, match="answers 'c', which is not among"):
        writer.write(12, PROMPTS, rollouts(ids=("a", "c")), scores(2))
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_former_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ScoreRecordWriter(tmp_path, max_rows_per_step=64)
    path = writer.write(12, PROMPTS, rollouts(), scores())
    before = path.read_bytes()

    def half_a_file(table: object, where: Path, **_: object) -> None:
        where.write_bytes(b"PAR1")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        writer.write(12, PROMPTS, rollouts(), scores())
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_records_come_back_with_the_critic_that_gave_them(tmp_path: Path) -> None:
    writer = ScoreRecordWriter(tmp_path, max_rows_per_step=64)
    later = writer.write(13, PROMPTS, rollouts(), dataclasses.replace(scores(), fingerprint=None))
    writer.write(12, PROMPTS, rollouts(), scores())
    (tmp_path / "notes.txt").write_text("not a record")
    first, second = find_records(tmp_path)
    assert (first.step, first.fingerprint, first.critic_version) == (12, FINGERPRINT, 8)
    assert (second.step, second.fingerprint, second.path) == (13, None, later)
    assert first.rows()[2] == ScoreRecord(
        example_id="a",
        messages=PROMPTS.examples[0].messages,
        teacher_response="Darum.",
        student_response="answer 2",
        teacher_score=float(scores().teacher[2]),
        student_score=float(scores().student[2]),
    )


def test_no_directory_holds_no_records(tmp_path: Path) -> None:
    assert find_records(tmp_path / "none") == []


def test_a_record_file_that_was_not_written_whole_is_named(tmp_path: Path) -> None:
    path = ScoreRecordWriter(tmp_path, max_rows_per_step=64).write(12, PROMPTS, rollouts(), scores())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"step-000012\.parquet.*cannot be read"):
        find_records(tmp_path)
