"""The fixed evaluation set scored again, at any time, by any critic that a run has kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gad_ray.activity import activity
from gad_ray.batch import Fingerprint, Metrics, SamplingSettings
from gad_ray.critics.store import KeptCritic, config_of, find_critics, find_target, first_with
from gad_ray.errors import ConfigError
from gad_ray.evaluation.heldout import load_fixed_set
from gad_ray.evaluation.paired import PairedVerdict, paired_verdict
from gad_ray.evaluation.scoring import score_texts
from gad_ray.observability.jsonl import read_lines
from gad_ray.observability.records import StepRecords, find_records
from gad_ray.observability.run_dir import RunDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A critic's verdict on the held-out prompts.

    Attributes:
        critic: Which critic.
        fingerprint: What it turned out to be.
        step: The step of the run whose evaluation this repeats; None where the run made none with this critic.
        num_prompts: Prompts that were judged.
        sampling: How the fixed answers were drawn.
        fixed: The verdict on the fixed answers.
        current: The verdict on the policy's answers of that step, where they were taken.
        logged: ``eval/*`` as the run logged them at that step; empty where it did not.
    """

    critic: KeptCritic
    fingerprint: Fingerprint
    step: int | None
    num_prompts: int
    sampling: SamplingSettings
    fixed: PairedVerdict
    current: PairedVerdict | None
    logged: Metrics

    @property
    def metrics(self) -> Metrics:
        """The figures under the names that a run logs."""
        current = {} if self.current is None else self.current.metrics("eval/current_")
        return {**self.fixed.metrics("eval/"), **current}


def evaluate_again(target: str, *, output_dir: str, step: int | None = None) -> Evaluation:
    """Score a run's fixed set, and the policy's answers that were recorded beside it.

    Args:
        target: Name or path of a run, or path of one of its checkpoints or exported critics.
        output_dir: Where runs are looked for by name.
        step: Take the critic that made the evaluation of this step; else the one that is named, or the newest.

    Raises:
        GadError: If there is no such critic, or its evaluation set cannot be read.
    """
    directory, critic = find_target(target, output_dir)
    config = config_of(directory)
    evaluations = find_records(directory.eval_fixed)
    critics = [critic] if critic is not None else find_critics(directory)
    chosen = _choose(critics, evaluations, step=step, directory=directory)
    done = _evaluation_by(evaluations, chosen, step=step)
    prompts, answers = load_fixed_set(directory.answers_before)
    batches = [list(zip(answers.example_ids, answers.texts, strict=True))]
    current = None if done is None else _records_of(directory.eval_current, done.step)
    if current is not None:
        batches.append([(row.example_id, row.student_response) for row in current.rows()])
    with activity(f"loading the critic {chosen.path}"):
        opened = chosen.load(config)
    # In one call as in the run: what is scored together decides the last bits of a score in bfloat16.
    with activity(f"scoring the answers to {len(prompts)} held-out prompts"):
        scored = score_texts(opened, prompts, batches)
    verdicts = [paired_verdict(scores.teacher, scores.student) for scores in scored]
    return Evaluation(
        critic=chosen,
        fingerprint=opened.fingerprint(),
        step=None if done is None else done.step,
        num_prompts=len(prompts),
        sampling=answers.sampling,
        fixed=verdicts[0],
        current=verdicts[1] if current is not None else None,
        logged={} if done is None else _logged(directory, done.step),
    )


def _choose(
    critics: list[KeptCritic], evaluations: list[StepRecords], *, step: int | None, directory: RunDirectory
) -> KeptCritic:
    if not critics:
        raise ConfigError(
            f"the run {directory.name} has kept no critic",
            hint="wait for its first checkpoint, or set checkpoint.every",
        )
    if step is None:
        # An export is of the same steps as the checkpoints or later; the last evaluation tells which is newest.
        newest = [first_with(critics, one.fingerprint) for one in reversed(evaluations)]
        return next((critic for critic in newest if critic is not None), critics[-1])
    wanted = next((one for one in evaluations if one.step == step), None)
    if wanted is None:
        known = ", ".join(str(one.step) for one in evaluations) or "none"
        raise ConfigError(
            f"there was no evaluation at step {step}", where="--step", hint=f"take one of {known}"
        )
    found = first_with(critics, wanted.fingerprint)
    if found is None:
        raise ConfigError(
            f"no critic that is still there made the evaluation of step {step}",
            where="--step",
            hint="checkpoint.keep says how many are kept; leave --step out for the newest",
        )
    return found


def _evaluation_by(
    evaluations: list[StepRecords], critic: KeptCritic, *, step: int | None
) -> StepRecords | None:
    """The run's own evaluation with this critic."""
    return next(
        (
            one
            for one in reversed(evaluations)
            if one.fingerprint is not None
            and one.fingerprint == critic.fingerprint
            and step in (None, one.step)
        ),
        None,
    )


def _records_of(directory: Path, step: int) -> StepRecords | None:
    return next((one for one in find_records(directory) if one.step == step), None)


def _logged(directory: RunDirectory, step: int) -> Metrics:
    """What the run itself logged of its evaluation; it may be writing still, or have died while it did."""
    for row in read_lines(directory.metrics_jsonl).rows:
        if row.get("step") == step:
            return {name: value for name, value in row.items() if name.startswith("eval/")}
    return {}
