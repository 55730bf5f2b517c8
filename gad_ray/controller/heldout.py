"""The held-out prompts during a run: answered before training, scored while it goes, answered again at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray

from gad_ray.actors.groups import Groups
from gad_ray.batch import Example, Float32, Metrics, PromptBatch, RolloutBatch, SamplingSettings, ScoreBatch
from gad_ray.config import RunConfig
from gad_ray.evaluation.heldout import (
    Answers,
    evaluation_metrics,
    load_rollouts,
    sample_rows,
    save_rollouts,
    summary_rows,
)
from gad_ray.observability.files import write_text
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.observability.summary import RunSummary, SampleRow

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
        self, config: RunConfig, *, directory: RunDirectory, examples: Sequence[Example], groups: Groups
    ) -> None:
        self._config = config
        self._directory = directory
        self._groups = groups
        self._prompts = PromptBatch(step=0, examples=tuple(examples)) if examples else None
        self._before: RolloutBatch | None = None
        self._nll_before: Float32 | None = None

    def take_before(self) -> None:
        """Draw the fixed answers with the policy as it is, and keep them on disk."""
        if self._prompts is None:
            return
        self._before, self._nll_before = self._answer(self._prompts)
        save_rollouts(self._before_path, self._before)
        write_text(self._nll_path, json.dumps(self._nll_before.tolist()) + "\n")

    def load_before(self) -> None:
        """Take the answers of an earlier part of the run from disk.

        Raises:
            CheckpointError: If they cannot be read.
        """
        if self._prompts is not None:
            self._before = load_rollouts(self._before_path)
            self._nll_before = np.asarray(json.loads(self._nll_path.read_text()), dtype=np.float32)

    def score_fixed_set(self) -> Metrics:
        """``eval/*``: the fixed answers under the critic of the moment."""
        assert self._prompts is not None
        assert self._before is not None
        (scores,) = self._score(None, self._before)
        return evaluation_metrics(scores, self._before)

    def export_critic(self, name: str) -> Path:
        """Write the critic of the moment under ``exports/``."""
        path = self._directory.exports / name
        self._groups.waiter.get(
            [self._groups.critic[0].export.remote(str(path))],
            what=f"the export of {name}",
            deadline_s=self._config.limits.checkpoint_s,
        )
        return path

    def compare(
        self, *, paths: Sequence[tuple[str, str]], timing: dict[str, float], memory: float
    ) -> RunSummary:
        """Answer the held-out prompts again, and set before and after side by side.

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
        assert self._nll_before is not None
        after, nll_after = self._answer(self._prompts)
        save_rollouts(self._directory.root / "eval" / "after.parquet", after)
        warmup = self._directory.exports / WARMUP_CRITIC
        frozen = str(warmup) if warmup.is_dir() else None
        by_frozen = self._score(frozen, self._before, after)
        # Without a warm-up the last critic is the only judge there is.
        by_last = self._score(None, self._before, after) if frozen else by_frozen
        sides = [
            Answers(rollouts=self._before, frozen=by_frozen[0], last=by_last[0], nll=self._nll_before),
            Answers(rollouts=after, frozen=by_frozen[1], last=by_last[1], nll=nll_after),
        ]
        samples = sample_rows(self._prompts, *sides)
        lines = (json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in samples)
        write_text(self._directory.samples_jsonl, "".join(lines))
        return RunSummary(
            name=summary.name,
            rows=summary_rows(*sides, warmed_up=frozen is not None),
            samples=_spread(samples, self._config.evaluation.sample_rows),
            paths=summary.paths,
            timing=timing,
            peak_memory_gib=memory,
        )

    @property
    def _before_path(self) -> Path:
        return self._directory.root / "eval" / "before.parquet"

    @property
    def _nll_path(self) -> Path:
        return self._directory.root / "eval" / "nll_before.json"

    def _answer(self, prompts: PromptBatch) -> tuple[RolloutBatch, Float32]:
        """One answer to every prompt, and how likely the teacher's text is."""
        rollout = self._config.rollout
        sampling = SamplingSettings(
            num_responses=1,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            repetition_penalty=rollout.repetition_penalty,
            max_tokens=rollout.max_response_tokens,
            seed=self._config.evaluation.seed,
        )
        refs = self._groups.generate(prompts, sampling)
        self._groups.receipts(refs, what="the answers to the held-out prompts")
        nll = self._take(
            [self._groups.policy[0].teacher_nll.remote(prompts)], "the likelihood of the teacher's text"
        )
        return RolloutBatch.concat(ray.get(list(refs.batches))), np.array(nll)

    def _score(self, exported: str | None, *answers: RolloutBatch) -> list[ScoreBatch]:
        call = self._groups.critic[0].score_fixed.remote(exported, self._prompts, *answers)
        return self._take([call], "the scores of the held-out prompts")

    def _take(self, refs: list[Any], what: str) -> Any:
        return self._groups.waiter.get(refs, what=what, deadline_s=self._config.limits.score_s)[0]


def _spread(samples: Sequence[SampleRow], limit: int) -> tuple[SampleRow, ...]:
    """``limit`` samples from all over the set: files are often sorted by kind."""
    limit = min(limit, len(samples))
    return tuple(samples[i * len(samples) // limit] for i in range(limit))
