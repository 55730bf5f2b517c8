"""Recorded scores given again: by the critic that gave them, or by another one that is held against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gad_ray.activity import activity
from gad_ray.batch import Fingerprint, Float32
from gad_ray.critics import Critic
from gad_ray.critics.store import config_of, find_critics, find_target, first_with
from gad_ray.errors import ConfigError
from gad_ray.models.pairs import Pair
from gad_ray.observability.records import ScoreRecord, StepRecords, find_records
from gad_ray.observability.run_dir import RunDirectory

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.02}
"""Largest |Δ| of a score that counts as the same, by the precision of the critic: which pairs share a forward pass
changes the order of sums, and bfloat16 has eight bits (0.002 was seen with a model of 135M parameters)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """How far scores given again lie from the recorded ones.

    Attributes:
        critic: Where the critic that scored again is: a directory or a URL.
        records: File of the records.
        step: Their step.
        num_rows: Pairs scored again.
        max_difference: Largest |Δ| over both sides' scores.
        mean_difference: Mean |Δ|.
        tolerance: What was allowed.
        recorded: Fingerprint in the records; None if it was not taken.
        found: Fingerprint of the critic that scored again.
        worst: The pair with the largest |Δ|, whose side, and that side's scores: recorded, again.
    """

    critic: str
    records: Path
    step: int
    num_rows: int
    max_difference: float
    mean_difference: float
    tolerance: float
    recorded: Fingerprint | None
    found: Fingerprint
    worst: tuple[ScoreRecord, str, float, float]

    @property
    def same_scores(self) -> bool:
        """Whether every score came again."""
        return self.max_difference <= self.tolerance

    @property
    def differing(self) -> tuple[str, ...]:
        """Parts of the fingerprint that are not those of the recorded critic."""
        return () if self.recorded is None else self.found.differing(self.recorded)


def replay(
    target: str,
    *,
    output_dir: str,
    step: int | None = None,
    via: Path | Critic | None = None,
    tolerance: float | None = None,
) -> Replay:
    """Score a step's records again.

    Args:
        target: Name or path of a run, or path of one of its checkpoints or exported critics.
        output_dir: Where runs are looked for by name.
        step: The step; left out: the latest whose critic is still there.
        via: Checkpoint or exported critic to score with, of this run or another, or one that is elsewhere; left out:
            the one that gave the scores, or the newest where that one is gone.
        tolerance: Largest |Δ| allowed; by the critic's precision where left out.

    Raises:
        GadError: If there are no such records, or no critic.
    """
    directory, named = find_target(target, output_dir)
    if via is not None and not isinstance(via, Path):
        return _score_again(via, _choose(directory, [via.fingerprint()], step=step), tolerance)
    owner = directory
    if via is not None:
        owner, named = find_target(str(via), output_dir)
        if named is None:
            raise ConfigError(
                f"{via} is a run, not a critic",
                where="--via",
                hint="give one of its checkpoints, or a directory under its exports/",
            )
    critics = [named] if named is not None else find_critics(directory)
    if not critics:
        raise ConfigError(
            f"the run {directory.name} has kept no critic",
            hint="wait for its first checkpoint, set checkpoint.every, or name a critic with --via",
        )
    records = _choose(directory, [critic.fingerprint for critic in critics], step=step)
    critic = first_with(critics, records.fingerprint) or critics[-1]
    with activity(f"loading the critic {critic.path}"):
        opened = critic.load(config_of(owner))
    return _score_again(opened, records, tolerance)


def _score_again(critic: Critic, records: StepRecords, tolerance: float | None) -> Replay:
    rows, found = records.rows(), critic.fingerprint()
    with activity(f"scoring the records of step {records.step} with {critic.where}"):
        scores = critic.score(_pairs(rows))
    return _compare(
        rows,
        scores,
        critic=critic.where,
        records=records,
        found=found,
        tolerance=TOLERANCE[found.dtype] if tolerance is None else tolerance,
    )


def _pairs(rows: Sequence[ScoreRecord]) -> list[Pair]:
    """Both sides of the records, the teacher's first."""
    pairs = [Pair(row.messages, row.teacher_response) for row in rows]
    return pairs + [Pair(row.messages, row.student_response) for row in rows]


def _choose(
    directory: RunDirectory, critics: Sequence[Fingerprint | None], *, step: int | None
) -> StepRecords:
    """The records of a step of training or, failing that, of evaluation; by default of a critic that is there."""
    known = [
        one
        for place in (directory.records, directory.eval_fixed, directory.eval_current)
        for one in find_records(place)
    ]
    if not known:
        raise ConfigError(
            f"the run {directory.name} has no score records",
            hint="set records.every to 1 or more and run again",
        )
    if step is not None:
        found = next((one for one in known if one.step == step), None)
        if found is None:
            steps = sorted({one.step for one in known})
            raise ConfigError(
                f"there are no records of step {step}",
                where="--step",
                hint=f"there are some of steps {steps[0]} to {steps[-1]}",
            )
        return found
    of_ours = [one for one in known if one.fingerprint is not None and one.fingerprint in critics]
    return max(of_ours or known, key=lambda one: one.step)


def _compare(
    rows: Sequence[ScoreRecord],
    scores: Float32,
    *,
    critic: str,
    records: StepRecords,
    found: Fingerprint,
    tolerance: float,
) -> Replay:
    recorded = np.array(
        [row.teacher_score for row in rows] + [row.student_score for row in rows], dtype=np.float32
    )
    difference = np.abs(scores - recorded)
    worst = int(difference.argmax())
    side = "teacher" if worst < len(rows) else "student"
    return Replay(
        critic=critic,
        records=records.path,
        step=records.step,
        num_rows=len(rows),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        tolerance=tolerance,
        recorded=records.fingerprint,
        found=found,
        worst=(rows[worst % len(rows)], side, float(recorded[worst]), float(scores[worst])),
    )
