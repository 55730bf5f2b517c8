"""From what a log's lines say to the rows of a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gad_ray.errors import DataError
from gad_ray.health.facts import NO_FACTS, RunFacts
from gad_ray.health.history import Note, Row
from gad_ray.health.reading.names import translate
from gad_ray.health.rules import UNKNOWN_STAGE
from gad_ray.health.signals import Signal, read_signals
from gad_ray.observability.metrics import STAGES

_OF_THE_GAME = ("actor/pg_loss", "actor/adv_std", "actor/kl_loss")
"""Metrics that a step has only where the policy follows the critic's score."""

_SHOWN_NAMES = 8


@dataclass(frozen=True, slots=True)
class LogLine:
    """What one line of a log says: step and stage, None if it does not tell them, and all else by name."""

    step: int | None
    stage: str | None
    values: Mapping[str, Any]


@dataclass(slots=True)
class ReadLog:
    """What was read of a log.

    Attributes:
        lines: Its lines that tell of a step, in order.
        facts: What it tells of the run.
        notes: What the reader must know of it.
        last_time: Unix seconds of its last step, None if it does not tell.
    """

    lines: list[LogLine] = field(default_factory=list[LogLine])
    facts: RunFacts = NO_FACTS
    notes: list[Note] = field(default_factory=list[Note])
    last_time: float | None = None


def assemble(log: ReadLog, *, where: str, stage: str | None) -> tuple[list[Row], bool, list[Note]]:
    """The steps of a log in order, those of several lines put together.

    Args:
        log: What was read.
        where: The log's place, for errors.
        stage: The stage of all its steps, where the user tells it.

    Returns:
        The rows, whether the log tells their numbers, and what the reader must know.

    Raises:
        DataError: If no rule could look at any of it.
    """
    numbered = any(line.step is not None for line in log.lines)
    metrics: dict[int, dict[str, float]] = {}
    stages: dict[int, str | None] = {}
    renamed: dict[str, str] = {}
    repeated: set[int] = set()
    step = 0
    for line in log.lines:
        # A line without a number follows the one before it.
        step = line.step if line.step is not None else step + 1
        told, names = translate(line.values)
        renamed |= names
        before = metrics.setdefault(step, {})
        if set(before) & set(told):
            repeated.add(step)
        before |= told
        stages[step] = line.stage or stages.get(step)
    if not any(_is_judged(row) for row in metrics.values()):
        raise _unknown_metrics(log.lines, where)
    # A line that tells of a checkpoint or a validation alone is no step to judge.
    steps = [step for step in sorted(metrics) if metrics[step]]
    inferred, notes = _stages(steps, metrics, stages, stage)
    rows = [Row(step=step, stage=inferred[step], metrics=metrics[step]) for step in steps]
    if repeated:
        notes.append(Note.of("repeated-steps", count=len(repeated)))
    if renamed:
        pairs = ", ".join(f"{theirs} → {ours}" for theirs, ours in renamed.items())
        notes.append(Note.of("read-as", names=pairs))
    return rows, numbered, notes


def _is_judged(row: Mapping[str, float]) -> bool:
    """Whether a rule could look at any of a step's metrics."""
    return any(value > 0 or signal != Signal.NUM_NONFINITE for signal, value in read_signals(row).items())


def _stages(
    steps: Sequence[int],
    metrics: Mapping[int, Mapping[str, float]],
    told: Mapping[int, str | None],
    given: str | None,
) -> tuple[dict[int, str], list[Note]]:
    """Every step's stage: given, told by the log, or seen from its metrics."""
    if given is not None:
        return dict.fromkeys(steps, given), []
    if all(told[step] in STAGES for step in steps):
        return {step: told[step] or UNKNOWN_STAGE for step in steps}, []
    begun = next((s for s in steps if any(name in metrics[s] for name in _OF_THE_GAME)), None)
    if begun is None:
        return {step: _known(told[step]) or UNKNOWN_STAGE for step in steps}, []
    guessed = {step: "adversarial" if step >= begun else "warmup" for step in steps}
    return {step: _known(told[step]) or guessed[step] for step in steps}, [Note.of("stage-inferred")]


def _known(stage: str | None) -> str | None:
    return stage if stage in STAGES else None


def _unknown_metrics(lines: Sequence[LogLine], where: str) -> DataError:
    names = list(dict.fromkeys(name for line in lines for name in line.values))
    shown = ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
    return DataError(
        f"tells of {len(lines)} steps, but of no metric that a health rule looks at; it has: {shown or 'none'}",
        where=where,
        hint="log some of critic/d_acc, critic/score_diff, critic/grad_norm, critic/teacher_score_mean, "
        "critic/student_score_mean, actor/pg_loss, actor/kl_loss, response_length/mean, eval/d_acc",
    )
