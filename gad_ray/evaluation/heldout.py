"""The fixed evaluation set: held-out prompts, and the answers that the policy gave to them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gad_ray.batch import (
    Example,
    Float32,
    Message,
    Metrics,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    ScoreBatch,
    StopReason,
)
from gad_ray.core.preference import preference
from gad_ray.errors import CheckpointError
from gad_ray.evaluation.paired import paired_verdict
from gad_ray.observability.summary import SampleRow, SummaryRow

_SETTINGS = b"gad_ray"


def save_rollouts(path: Path, rollouts: RolloutBatch, prompts: PromptBatch | None = None) -> None:
    """Write responses with their tokens, log-probabilities and sampling settings as Parquet.

    Args:
        path: The file.
        rollouts: The responses.
        prompts: What they answer; with it, the file can be scored by itself.
    """
    table = pa.table(
        {
            **_conversations(rollouts, prompts),
            "example_id": list(rollouts.example_ids),
            "text": list(rollouts.texts),
            "prompt_tokens": [row.tolist() for row in rollouts.prompt_tokens],
            "response_tokens": [row.tolist() for row in rollouts.response_tokens],
            "logprobs": pa.array([row.tolist() for row in rollouts.logprobs], pa.list_(pa.float32())),
            "stop_reason": [reason.value for reason in rollouts.stop_reasons],
            "policy_version": rollouts.policy_versions,
            "teacher_length": rollouts.teacher_lengths,
        }
    )
    meta = {
        "step": rollouts.step,
        "sampling": asdict(rollouts.sampling),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".staging")
    pq.write_table(table.replace_schema_metadata({_SETTINGS: json.dumps(meta).encode()}), staging)
    staging.replace(path)


def _conversations(rollouts: RolloutBatch, prompts: PromptBatch | None) -> dict[str, list[str]]:
    if prompts is None:
        return {}
    examples = {example.id: example for example in prompts.examples}
    owners = [examples[example_id] for example_id in rollouts.example_ids]
    return {
        "messages": [json.dumps([asdict(m) for m in e.messages], ensure_ascii=False) for e in owners],
        "teacher_response": [example.teacher_response for example in owners],
    }


def load_rollouts(path: Path) -> RolloutBatch:
    """Read the responses that :func:`save_rollouts` wrote.

    Raises:
        CheckpointError: If the file is missing or was not written whole.
    """
    return _read(path)[0]


def load_fixed_set(path: Path) -> tuple[PromptBatch, RolloutBatch]:
    """Read the prompts that were answered, with the teacher's text, and the responses.

    Raises:
        CheckpointError: If the file is missing or was not written whole.
    """
    rollouts, columns = _read(path)
    if "messages" not in columns:
        raise CheckpointError(
            "holds answers without the prompts", where=str(path), hint="give a file under a run's eval/"
        )
    examples: dict[str, Example] = {}
    for row, example_id in enumerate(rollouts.example_ids):
        examples[example_id] = Example(
            id=example_id,
            messages=tuple(Message(**message) for message in json.loads(columns["messages"][row])),
            teacher_response=columns["teacher_response"][row],
        )
    return PromptBatch(step=rollouts.step, examples=tuple(examples.values())), rollouts


def _read(path: Path) -> tuple[RolloutBatch, dict[str, list[Any]]]:
    try:
        table = pq.read_table(path)
        meta = json.loads((table.schema.metadata or {})[_SETTINGS])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise CheckpointError(
            f"the answers to the held-out prompts cannot be read: {error}",
            where=str(path),
            hint="put the file back, or start a new run",
        ) from None
    columns = cast("dict[str, list[Any]]", table.to_pydict())
    # Files of earlier releases name one version for all.
    versions = columns.get("policy_version") or [meta["policy_version"]] * len(table)
    rollouts = RolloutBatch(
        step=meta["step"],
        example_ids=tuple(columns["example_id"]),
        texts=tuple(columns["text"]),
        prompt_tokens=Ragged.from_rows(columns["prompt_tokens"], np.int32),
        response_tokens=Ragged.from_rows(columns["response_tokens"], np.int32),
        logprobs=Ragged.from_rows(columns["logprobs"], np.float32),
        stop_reasons=tuple(StopReason(reason) for reason in columns["stop_reason"]),
        policy_versions=np.asarray(versions, dtype=np.int64),
        sampling=SamplingSettings(**meta["sampling"]),
        teacher_lengths=np.asarray(columns["teacher_length"], dtype=np.int32),
    )
    return rollouts, columns


def fixed_metrics(scores: ScoreBatch) -> Metrics:
    """How the critic of the moment judges the fixed answers: what changes here is the critic alone."""
    return {
        **paired_verdict(scores.teacher, scores.student).metrics("eval/"),
        "eval/teacher_score_mean": float(scores.teacher.mean()),
        "eval/student_score_mean": float(scores.student.mean()),
    }


def teacher_answers(prompts: PromptBatch, rollouts: RolloutBatch) -> RolloutBatch:
    """The teacher's texts in the place of a policy's, to go the way of its answers: the critic should not tell.

    Only the texts are others: their tokens and probabilities under the policy are not known.
    """
    teacher = {example.id: example.teacher_response for example in prompts.examples}
    return dataclasses.replace(rollouts, texts=tuple(teacher[i] for i in rollouts.example_ids))


def identical_text_metrics(scores: ScoreBatch) -> Metrics:
    """How far apart the critic scores the teacher's text and the same text as an answer."""
    return {"eval/identical_text_diff": float(np.abs(scores.teacher - scores.student).max())}


def current_metrics(scores: ScoreBatch, answers: TextAnswers) -> Metrics:
    """How it judges the answers of the policy of the moment, and what they are like."""
    rollouts = answers.rollouts
    return {
        **paired_verdict(scores.teacher, scores.student).metrics("eval/current_"),
        "eval/reward": float(scores.student.mean()),
        "eval/teacher_nll": float(answers.nll.mean()),
        "eval/response_length": float(rollouts.text_lengths.mean()),
        "eval/teacher_length": float(rollouts.teacher_lengths.mean()),
        "eval/distinct_1": distinct_n(rollouts.texts, 1),
        "eval/distinct_2": distinct_n(rollouts.texts, 2),
    }


def share_unchanged(before: RolloutBatch, after: RolloutBatch) -> float | None:
    """Share of the prompts answered both times whose text is the same; None where there are none."""
    texts = dict(zip(after.example_ids, after.texts, strict=True))
    same = [
        text == texts[example_id]
        for example_id, text in zip(before.example_ids, before.texts, strict=True)
        if example_id in texts
    ]
    return float(np.mean(same)) if same else None


def unchanged_row(share: float) -> SummaryRow:
    """The share of greedy answers that training left as they were."""
    return _row(
        "greedy answers that are the same as before the first step", [100.0, 100.0 * share], None, "%", 1
    )


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct word n-grams over all n-grams of a set of texts (Li et al., 2016); 0 where there are none."""
    grams = [
        tuple(words[i : i + n]) for words in (t.split() for t in texts) for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAnswers:
    """The answers to the held-out prompts at one time.

    Attributes:
        rollouts: The answers, one a prompt.
        nll: [N] negative log-likelihood (nats a token) of the teacher's text under the policy of that time.
    """

    rollouts: RolloutBatch
    nll: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers(TextAnswers):
    """The same, scored.

    Attributes:
        frozen: Their scores by the warm-up's critic, which has not changed since.
        last: Their scores by the run's last critic.
    """

    frozen: ScoreBatch
    last: ScoreBatch


def summary_rows(before: Answers, after: Answers, *, warmed_up: bool) -> tuple[SummaryRow, ...]:
    """The table at a run's end. Every row says what was measured, on the same held-out prompts."""
    judge = "warm-up critic, frozen" if warmed_up else "last critic"
    teacher = float(before.frozen.teacher.mean())
    sides = (before, after)
    return (
        _row(
            f"reward of the student ({judge}; teacher {teacher:.2f})",
            [s.frozen.student.mean() for s in sides],
            "higher",
        ),
        _row(
            f"teacher preferred, eval/d_acc ({judge})",
            [100 * preference(s.frozen.teacher, s.frozen.student) for s in sides],
            "lower",
            "%",
            1,
        ),
        _row(
            "teacher preferred, eval/d_acc (last critic)",
            [100 * preference(s.last.teacher, s.last.student) for s in sides],
            "lower",
            "%",
            1,
        ),
        *text_rows(before, after),
    )


def text_rows(before: TextAnswers, after: TextAnswers) -> tuple[SummaryRow, ...]:
    """The rows of the table that need no critic."""
    sides = (before, after)
    lengths = [side.rollouts.text_lengths.mean() for side in sides]
    cut = [100 * np.mean([r is StopReason.LENGTH for r in s.rollouts.stop_reasons]) for s in sides]
    teacher = before.rollouts.teacher_lengths.mean()
    return (
        nll_row(before.nll, after.nll),
        _row(f"response length (teacher {teacher:.1f})", lengths, None, "tokens", 1),
        _row("responses cut at the limit", cut, None, "%", 1),
        _row("distinct-1", [distinct_n(s.rollouts.texts, 1) for s in sides]),
        _row("distinct-2", [distinct_n(s.rollouts.texts, 2) for s in sides]),
    )


def nll_row(before: Float32, after: Float32) -> SummaryRow:
    """How likely the teacher's text is to the policy."""
    label = "negative log-likelihood of the teacher's text"
    return _row(label, [before.mean(), after.mean()], "lower", "nats/token")


def _row(
    label: str,
    values: Sequence[Any],
    better: Literal["higher", "lower"] | None = None,
    unit: str = "",
    digits: int = 3,
) -> SummaryRow:
    return SummaryRow(
        label=label, before=float(values[0]), after=float(values[1]), better=better, unit=unit, digits=digits
    )


def sample_rows(prompts: PromptBatch, before: TextAnswers, after: TextAnswers) -> tuple[SampleRow, ...]:
    """The held-out prompts that were answered both times, with all their answers, and scores where there are any."""
    later = {example_id: i for i, example_id in enumerate(after.rollouts.example_ids)}
    examples = {example.id: example for example in prompts.examples}
    rows: list[SampleRow] = []
    for i, example_id in enumerate(before.rollouts.example_ids):
        j = later.get(example_id)
        if j is None:
            continue
        example = examples[example_id]
        rows.append(
            SampleRow(
                prompt=example.messages[-1].content,
                teacher=example.teacher_response,
                before=before.rollouts.texts[i],
                after=after.rollouts.texts[j],
                teacher_score=float(before.frozen.teacher[i]) if isinstance(before, Answers) else None,
                before_score=float(before.frozen.student[i]) if isinstance(before, Answers) else None,
                after_score=float(after.frozen.student[j]) if isinstance(after, Answers) else None,
            )
        )
    return tuple(rows)
