"""Directories of runs, as runs leave them, made by the writers of real ones."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gad_ray.batch import (
    Example,
    Fingerprint,
    Message,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    ScoreBatch,
    StopReason,
    TokenValues,
)
from gad_ray.config import to_yaml
from gad_ray.config.load import validate
from gad_ray.observability.records import ScoreRecordWriter
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.observability.summary import RunSummary, SampleRow, SummaryRow

BEGUN = 1_700_000_000.0
EVIL = "</script><img src=x onerror=alert(1)><!-- <b>bold</b> & \u2028"
CHINESE = "天空为什么是蓝色的？繁體：龍門。"


def make_run(root: Path, *, steps: int = 12, warmup: int = 4, **changed: Any) -> RunDirectory:
    """A run's directory with its configuration, versions and so many steps; settings may be changed."""
    raw = {
        "name": root.name,
        "output_dir": str(root.parent),
        "prompts_per_step": 4,
        "data": {"train": ["rows.jsonl"]},
        "policy": {"model": {"model": "student"}},
        "critic": {"model": {"model": "critic"}},
        "rollout": {"responses_per_prompt": 2},
        "stages": {"warmup": {"steps": warmup}, "adversarial": {"steps": max(1, steps - warmup)}},
        **changed,
    }
    directory = RunDirectory(root=root)
    root.mkdir(parents=True)
    directory.records.mkdir()
    directory.config_yaml.write_text(to_yaml(validate(raw, where="test")), encoding="utf-8")
    directory.versions_json.write_text(json.dumps({"python": "3.11.7", "vllm": None}))
    append(directory.metrics_jsonl, [step_row(step, warmup=warmup) for step in range(1, steps + 1)])
    return directory


def step_row(step: int, *, warmup: int = 4, **more: Any) -> dict[str, Any]:
    """A line of ``metrics.jsonl``."""
    row: dict[str, Any] = {
        "step": step,
        "stage": "warmup" if step <= warmup else "adversarial",
        "time": BEGUN + 10.0 * step,
        "critic/d_acc": 0.5 + 0.4 * math.sin(step) ** 2,
        "critic/score_diff": 1.0 + 0.1 * step,
        "critic/ranking_loss": 0.7 / step,
        "critic/teacher_score_mean": 1.5,
        "critic/teacher_score_min": 1.0,
        "critic/teacher_score_max": 2.0,
        "perf/memory_bytes": 2.0**30,
        "timing_s/step": 10.0,
        "timing_s/rollout": 6.0,
        "timing_s/score": 3.0,
    }
    if step % 4 == 0:
        row |= {"eval/d_acc": 0.8, "eval/d_acc_low": 0.7, "eval/d_acc_high": 0.9, "timing_s/eval": 1.0}
    return {**row, **more}


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append lines of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def add_event(directory: RunDirectory, name: str, *, after: int, **content: Any) -> None:
    """Something that happened just after a step."""
    append(directory.events_jsonl, [{"time": BEGUN + 10.0 * after + 1.0, "event": name, **content}])


def add_finding(directory: RunDirectory, step: int, **more: Any) -> None:
    """A health rule that began to hold."""
    finding = {
        "rule": "length-shortcut",
        "severity": "warning",
        "stage": "warmup",
        "step": step,
        "values": {"d_acc": 0.93, "response length": 38.5},
        "meaning": "Length decides the score.",
        "advice": ["critic.loss.temperature.value=5.0"],
    }
    add_event(directory, "health", after=step, **{**finding, **more})


def add_records(
    directory: RunDirectory,
    step: int,
    *,
    students: Sequence[tuple[float, int]] = ((0.5, 3), (-0.5, 9)),
    teacher: float = 1.0,
    prompt: str = CHINESE,
    response: str = "答案",
    values: bool = False,
    into: Path | None = None,
) -> Path:
    """The score records of a step, or of an evaluation: one prompt, a (score, length) for every response."""
    count = len(students)
    example = Example(
        id="a",
        messages=(Message(role="system", content="Kurz."), Message(role="user", content=prompt)),
        teacher_response="天空。",
    )
    # All but the first ended their turn, with a token that is not of the text.
    tokens = Ragged.from_rows([[5] * (length + (i > 0)) for i, (_, length) in enumerate(students)], np.int32)
    rollouts = RolloutBatch(
        step=step,
        example_ids=("a",) * count,
        texts=(response,) * count,
        prompt_tokens=Ragged.from_rows([[1, 2]] * count, np.int32),
        response_tokens=tokens,
        logprobs=Ragged(values=np.full(len(tokens.values), -1.0, dtype=np.float32), offsets=tokens.offsets),
        stop_reasons=(StopReason.LENGTH,) + (StopReason.STOP,) * (count - 1),
        policy_versions=np.full(count, 3),
        sampling=SamplingSettings(
            num_responses=count, temperature=0.6, top_p=0.9, repetition_penalty=1.2, max_tokens=64, seed=99
        ),
        teacher_lengths=np.full(count, 7, dtype=np.int32),
    )
    kept = TokenValues(
        position=count - 1,
        teacher=np.asarray([1.0, 2.0, 0.0], dtype=np.float32),
        teacher_ends=np.asarray([1, 2, 3], dtype=np.int32),
        student=np.asarray([-1.0, 0.0], dtype=np.float32),
        student_ends=np.asarray([1, len(response)], dtype=np.int32),
    )
    scores = ScoreBatch(
        student=np.asarray([score for score, _ in students], dtype=np.float32),
        teacher=np.full(count, teacher, dtype=np.float32),
        critic_version=8,
        fingerprint=Fingerprint(
            weights="w", head="h", template="t", tokenizer="k", pooling="p", dtype="float32"
        ),
        token_values=(kept,) if values else (),
    )
    writer = ScoreRecordWriter(into or directory.records, max_rows_per_step=64)
    return writer.write(step, PromptBatch(step=step, examples=(example,)), rollouts, scores)


def add_summary(directory: RunDirectory, *, text: str = "An answer.") -> None:
    """The account of the run's end, and the held-out answers."""
    sample = SampleRow(
        prompt=text,
        teacher=text,
        before=text,
        after=text,
        teacher_score=2.0,
        before_score=0.5,
        after_score=1.0,
    )
    summary = RunSummary(
        name=directory.name,
        rows=(
            SummaryRow(
                label="reward of the student (last critic; teacher 2.00)",
                before=0.5,
                after=1.0,
                better="higher",
            ),
        ),
        samples=(sample,),
        paths=(),
        peak_memory_gib=3.5,
    )
    directory.summary_json.write_text(summary.to_json(), encoding="utf-8")
    held_out = [
        {
            "prompt": text,
            "teacher": text,
            "before": text,
            "after": text,
            "teacher_score": 2.0,
            "before_score": 0.5,
            "after_score": 1.0,
        }
    ]
    append(directory.samples_jsonl, held_out)


def whole_run(root: Path) -> RunDirectory:
    """A run that has everything in it that a report can show, markup and Chinese among it."""
    directory = make_run(root)
    add_finding(directory, 3)
    add_records(directory, 1, prompt=EVIL, response=EVIL)
    for step in range(2, 13):
        add_records(directory, step, values=step % 2 == 0)
    add_summary(directory, text=EVIL)
    return directory
