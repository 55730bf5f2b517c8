"""The held-out prompts during a run: answered before training, scored while it goes, answered again at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from gad_ray.actors.groups import ActorGroups
from gad_ray.batch import (
    Example,
    Fingerprint,
    Float32,
    Metrics,
    PromptBatch,
    RolloutBatch,
    SamplingSettings,
    ScoreBatch,
)
from gad_ray.config import RunConfig
from gad_ray.evaluation.heldout import (
    Answers,
    TextAnswers,
    current_metrics,
    fixed_metrics,
    identical_text_metrics,
    load_rollouts,
    sample_rows,
    save_rollouts,
    share_unchanged,
    summary_rows,
    teacher_answers,
    unchanged_row,
)
from gad_ray.observability.files import write_text
from gad_ray.observability.records import ScoreRecordWriter, find_records
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.observability.summary import RunSummary, SampleRow

T = TypeVar("T")

WARMUP_CRITIC = "critic-warmup"


class HeldOut:
    """The fixed evaluation set of one run.

    Args:
        config: The run.
        directory: Where the answers are kept.
        examples: The held-out prompts; there may be none.
        groups: The actors.
    """

    def __init__(
        self, config: RunConfig, *, directory: RunDirectory, examples: Sequence[Example], groups: ActorGroups
    ) -> None:
        self._config = config
        self._directory = directory
        self._groups = groups
        self._prompts = PromptBatch(step=0, examples=tuple(examples)) if examples else None
        self._before: TextAnswers | None = None
        self._current: TextAnswers | None = None
        self._greedy = GreedyAnswers(config, directory=directory, examples=examples)
        self._share: tuple[int, float | None] | None = None
        self._judged: tuple[list[TextAnswers], list[ScoreBatch]] = ([], [])
        self._judge: Fingerprint | None = None

    @property
    def sampling(self) -> SamplingSettings | None:
        """How the fixed answers were drawn; None where there are none."""
        return None if self._before is None else self._before.rollouts.sampling

    def take_before(self) -> None:
        """Draw the fixed answers with the policy as it is, and keep them on disk."""
        if self._prompts is None:
            return
        self._before = self._answer(self._prompts)
        save_rollouts(self._directory.answers_before, self._before.rollouts, self._prompts)
        save_nll(self._directory, self._before.nll)
        self._greedy.take_before(groups=self._groups)

    def load_before(self, *, step: int) -> None:
        """Take the answers of an earlier part of the run from disk, and which critic it had evaluated last.

        Args:
            step: The step after which the run goes on.

        Raises:
            CheckpointError: If the answers cannot be read.
            DataError: If the records of an evaluation cannot.
        """
        if self._prompts is not None:
            self._before = load_answers_before(self._directory)
            evaluated = [one for one in find_records(self._directory.eval_fixed) if one.step == step]
            self._judge = evaluated[0].fingerprint if evaluated else None

    def evaluate(self, *, step: int, policy_version: int, last: bool = False) -> Metrics:
        """``eval/*``: the fixed answers under the critic of the moment, and the policy's answers of the moment.

        What was compared is recorded under ``eval/fixed`` and ``eval/current``, with the critic's fingerprint.

        Args:
            step: The step that has just been done.
            policy_version: Version of the weights that the engines hold.
            last: Whether training is over: then the greedy answers are compared with those before it.
        """
        assert self._prompts is not None
        assert self._before is not None
        answered = [self._before]
        if self._config.evaluation.resample:
            # While the policy stands still these are the fixed answers again, and equal text is scored once.
            answered.append(self._answers_of(policy_version))
        own = teacher_answers(self._prompts, self._before.rollouts)
        *scores, identical = self._score(None, *(one.rollouts for one in answered), own)
        self._judged = (answered, scores)
        self._judge = scores[0].fingerprint
        self._keep(self._directory.eval_fixed, step, scores[0], self._before.rollouts)
        metrics = fixed_metrics(scores[0]) | identical_text_metrics(identical)
        if self._config.evaluation.resample:
            self._keep(self._directory.eval_current, step, scores[1], answered[1].rollouts)
            metrics |= current_metrics(scores[1], answered[1])
        unchanged = self._unchanged(policy_version) if last else None
        return metrics if unchanged is None else metrics | {"eval/greedy_unchanged": unchanged}

    def same_critic(self, metrics: Metrics) -> Metrics:
        """Whether the critic that scored a step is the one that was evaluated right before it; asked once.

        Nothing lies between the two, so that all parts of the fingerprint must agree.

        Args:
            metrics: Of the step; with the critic's fingerprint if the step is recorded.
        """
        judge, self._judge = self._judge, None
        if judge is None or "critic/fingerprint" not in metrics:
            return {}
        return {"critic/same_as_evaluated": float(metrics["critic/fingerprint"] == judge.number)}

    def export_critic(self, name: str) -> Path:
        """Write the critic of the moment under ``exports/``."""
        path = self._directory.exports / name
        self._groups.critic.export(path)
        return path

    def compare(
        self,
        *,
        policy_version: int,
        paths: Sequence[tuple[str, str]],
        timing: dict[str, float],
        memory: float,
    ) -> RunSummary:
        """Set the answers to the held-out prompts before training and now side by side.

        The judge of both is one critic: the warm-up's, frozen since, or the last one where there was none.
        """
        summary = RunSummary(
            name=self._directory.name,
            rows=(),
            samples=(),
            paths=tuple(paths),
            timing=timing,
            peak_memory_gib=memory,
        )
        if self._prompts is None:
            return summary
        assert self._before is not None
        after = self._answers_of(policy_version)
        save_rollouts(self._directory.answers_after, after.rollouts, self._prompts)
        base = self._before
        note = ""
        if self._config.stages.warm_start != "none":
            base = load_answers_before(self._directory.warm_start)
            note = "Before: the base model, as it was before the warm start."
        warmup = self._directory.exports / WARMUP_CRITIC
        frozen = str(warmup) if warmup.is_dir() else None
        by_last = self._by_last_critic(base, after)
        # Without a warm-up the last critic is the only judge there is.
        by_frozen = self._score(frozen, base.rollouts, after.rollouts) if frozen else by_last
        sides = [
            Answers(rollouts=base.rollouts, frozen=by_frozen[0], last=by_last[0], nll=base.nll),
            Answers(rollouts=after.rollouts, frozen=by_frozen[1], last=by_last[1], nll=after.nll),
        ]
        unchanged = self._unchanged(policy_version)
        rows = summary_rows(*sides, warmed_up=frozen is not None)
        samples = sample_rows(self._prompts, *sides)
        save_samples(self._directory, samples)
        return RunSummary(
            name=summary.name,
            rows=rows if unchanged is None else (*rows, unchanged_row(unchanged)),
            samples=spread_out(samples, self._config.evaluation.sample_rows),
            paths=summary.paths,
            timing=timing,
            peak_memory_gib=memory,
            note=note,
        )

    def _answers_of(self, policy_version: int) -> TextAnswers:
        """The policy's answers at a version of its weights: the same settings and seed, so drawn once for each."""
        assert self._prompts is not None
        for known in (self._before, self._current):
            if known is not None and known.rollouts.oldest_version == policy_version:
                return known
        self._current = self._answer(self._prompts)
        return self._current

    def _unchanged(self, policy_version: int) -> float | None:
        """The share of greedy answers that are as before training, asked once for each version of the policy."""
        if self._share is None or self._share[0] != policy_version:
            share = self._greedy.share_unchanged(groups=self._groups, policy_version=policy_version)
            self._share = (policy_version, share)
        return self._share[1]

    def _answer(self, prompts: PromptBatch) -> TextAnswers:
        """One answer to every prompt, and how likely the teacher's text is."""
        answers = answer(self._config, self._groups, prompts)
        nll = self._groups.policy.teacher_nll(prompts)
        return TextAnswers(rollouts=answers, nll=np.array(nll))

    def _keep(self, directory: Path, step: int, scores: ScoreBatch, answers: RolloutBatch) -> None:
        assert self._prompts is not None
        writer = ScoreRecordWriter(directory, max_rows_per_step=len(answers))
        writer.write(step, self._prompts, answers, scores)

    def _by_last_critic(self, *answers: TextAnswers) -> list[ScoreBatch]:
        """Scores by the critic that no step changes any more: those of the last evaluation, if it judged the same."""
        judged, scores = self._judged
        if len(judged) == len(answers) and all(a is b for a, b in zip(judged, answers, strict=True)):
            return scores
        return self._score(None, *(one.rollouts for one in answers))

    def _score(self, exported: str | None, *rollouts: RolloutBatch) -> list[ScoreBatch]:
        assert self._prompts is not None
        return self._groups.critic.score_fixed(exported, self._prompts, rollouts)


class GreedyAnswers:
    """What the policy answers to some held-out prompts where nothing is left to chance, before training and after.

    Args:
        config: The run.
        directory: Where those before training are kept.
        examples: The held-out prompts; there may be none.
    """

    def __init__(self, config: RunConfig, *, directory: RunDirectory, examples: Sequence[Example]) -> None:
        self._config = config
        self._file = directory.greedy_before
        asked = spread_out(examples, config.evaluation.greedy_prompts)
        self._prompts = PromptBatch(step=0, examples=asked) if asked else None

    def take_before(self, *, groups: ActorGroups) -> None:
        """Keep the answers of the policy as it is."""
        if self._prompts is not None:
            before = answer(self._config, groups, self._prompts, greedy=True)
            save_rollouts(self._file, before, self._prompts)

    def share_unchanged(self, *, groups: ActorGroups, policy_version: int | None = None) -> float | None:
        """Share of the answers that are as before training.

        None where none were kept: without held-out prompts, or in a run that began with an earlier release.

        Args:
            groups: The actors that answer.
            policy_version: Of the policy as it is: where it is the one that answered before, nobody is asked.
        """
        if self._prompts is None or not self._file.is_file():
            return None
        before = load_rollouts(self._file)
        if before.oldest_version == policy_version:
            return 1.0
        return share_unchanged(before, answer(self._config, groups, self._prompts, greedy=True))


def answer(
    config: RunConfig, groups: ActorGroups, prompts: PromptBatch, *, greedy: bool = False
) -> RolloutBatch:
    """One answer of the policy to every held-out prompt, always drawn in the same way."""
    sampling = SamplingSettings.of(config.rollout, num_responses=1, seed=config.evaluation.seed)
    if greedy:
        # No penalty and no nucleus: of what the model itself holds likeliest.
        sampling = replace(sampling, temperature=0.0, top_p=1.0, repetition_penalty=1.0)
    pending = groups.rollout.generate(prompts, sampling)
    kind = "greedy answers" if greedy else "answers"
    groups.rollout.receipts(pending, what=f"the {kind} to the held-out prompts")
    return pending.rollouts.join()


def save_nll(directory: RunDirectory, nll: Float32) -> None:
    """Keep how likely the teacher's text was before training."""
    write_text(directory.nll_before, json.dumps(nll.tolist()) + "\n")


def save_samples(directory: RunDirectory, samples: Sequence[SampleRow]) -> None:
    """Keep the held-out prompts with all their answers and scores."""
    lines = (json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in samples)
    write_text(directory.samples_jsonl, "".join(lines))


def load_answers_before(directory: RunDirectory) -> TextAnswers:
    """What was kept of the policy before training.

    Raises:
        CheckpointError: If it cannot be read.
    """
    rollouts = load_rollouts(directory.answers_before)
    nll = np.asarray(json.loads(directory.nll_before.read_text()), dtype=np.float32)
    return TextAnswers(rollouts=rollouts, nll=nll)


def spread_out(samples: Sequence[T], limit: int) -> tuple[T, ...]:
    """``limit`` of them from all over the set: files are often sorted by kind."""
    limit = min(limit, len(samples))
    return tuple(samples[i * len(samples) // limit] for i in range(limit))
