"""The ways to fit, each a step on the prompts of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from gad_ray.batch import Example, PromptBatch, TrainStats
from gad_ray.checkpoint.tensors import load_state, save_state
from gad_ray.config import SodaFit
from gad_ray.errors import CheckpointError
from gad_ray.fitting.job import FitJob
from gad_ray.fitting.responses import load_responses
from gad_ray.learners.policy import PolicyLearner
from gad_ray.learners.preference import (
    ReferenceLogprobs,
    preference_groups,
    preference_step,
    reference_logprobs,
)


class Method(Protocol):
    """One optimiser step on a batch of prompts."""

    def step(self, prompts: PromptBatch) -> TrainStats:
        """Train on the prompts; every rank gets all of them."""
        ...


def build_method(job: FitJob, learner: PolicyLearner, train: Sequence[Example]) -> Method:
    """The method that the job names. The learner must still hold the base policy's weights."""
    if job.method == "seqkd":
        return SeqKd(learner)
    return Soda(job, learner, train)


class SeqKd:
    """Cross-entropy on the teacher's text."""

    def __init__(self, learner: PolicyLearner) -> None:
        self._learner = learner

    def step(self, prompts: PromptBatch) -> TrainStats:
        """Train on the prompts."""
        return self._learner.fit(prompts)


class Soda:
    """DPO on the teacher's text against the student's own responses.

    The base policy's log-probabilities are computed once, before the first step, and kept on disk: no second
    model is held, and a fit that goes on after a break has the same ones.
    """

    def __init__(self, job: FitJob, learner: PolicyLearner, train: Sequence[Example]) -> None:
        self._learner = learner
        self._config: SodaFit = job.config.fit.soda
        self._groups = preference_groups(learner.model.chat, train, load_responses(job.responses))
        self._references = self._take_references(job.reference)

    def step(self, prompts: PromptBatch) -> TrainStats:
        """Train on the prompts that the student has answered; without any, the policy stands still."""
        ids = [example.id for example in prompts.examples if example.id in self._groups]
        if not ids:
            return TrainStats(metrics={"dpo/pairs": 0.0}, num_steps=0)
        groups = [self._groups[i] for i in ids]
        return preference_step(self._learner, groups, [self._references[i] for i in ids], self._config)

    def _take_references(self, path: Path) -> dict[str, ReferenceLogprobs]:
        collective = self._learner.collective
        ids, sizes = list(self._groups), [len(group.rows) for group in self._groups.values()]
        found = _read(path, ids=ids, sizes=sizes)
        # All ranks read it or all compute it; a file system may show it to some of them only.
        missing = torch.tensor([float(found is None)])
        collective.add_up([missing])
        if found is not None and not missing.any():
            return found
        references = reference_logprobs(self._learner, self._groups)
        if collective.rank == 0:
            values = torch.cat([torch.from_numpy(references[i].values) for i in ids])
            save_state(path, {"logprobs": values}, {"ids": ids, "sizes": sizes})
        return references


def _read(path: Path, *, ids: list[str], sizes: list[int]) -> dict[str, ReferenceLogprobs] | None:
    """What was kept for exactly these responses, or None."""
    try:
        tensors, meta = load_state(path)
    except CheckpointError:
        return None
    if meta["ids"] != ids or meta["sizes"] != sizes:
        return None
    parts = torch.split(tensors["logprobs"], sizes)
    return {i: ReferenceLogprobs(values=part.numpy()) for i, part in zip(ids, parts, strict=True)}
