"""One student on the held-out prompts: likelihood, length, variety, and a freshly trained critic's verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np

from gad_ray.auto import resolve
from gad_ray.batch import Example, PromptBatch, RolloutBatch, SamplingSettings, StopReason
from gad_ray.config import RunConfig
from gad_ray.data.dataset import LoadedData
from gad_ray.evaluation.fresh_critic import FreshVerdict, fresh_verdict
from gad_ray.evaluation.heldout import distinct_n
from gad_ray.models.policy import PolicyModel
from gad_ray.models.run_data import load_run_data
from gad_ray.rollout.worker import RolloutWorker

_HELDOUT_RESPONSES = 4
_FRESH_PROMPTS_PER_STEP = 16
# Other draws than those of training, which count up from the run's seed.
_SEED_OFFSET = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was measured of one student.

    Attributes:
        nll: Mean negative log-likelihood (nats a token) of the teacher's text, over prompts.
        length_ratio: Mean response length over the teacher's, both in the student's tokens without end of turn.
        cut: Share of responses that reached the token limit.
        distinct_1: Distinct words over all words of the responses.
        distinct_2: The same of pairs of words.
        fresh: The verdict of a critic trained anew.
        answers: Prompt's id → the first of the student's responses to it.
    """

    nll: float
    length_ratio: float
    cut: float
    distinct_1: float
    distinct_2: float
    fresh: FreshVerdict
    answers: dict[str, str]


def judge_policy(config: RunConfig, *, seed: int, scratch: Path) -> Judgement:
    """Sample the policy that a config names, and judge it. Uses no Ray; loads a student, then a critic.

    Args:
        config: Gives the policy's model, the data, the sampling, and the critic to train anew.
        seed: Of the samples and of the fresh critic.
        scratch: Directory for the rows of the data that are not used.

    Raises:
        GadError: If data or models cannot be used.
    """
    config = resolve(config).config
    data = load_run_data(config, quarantine_path=scratch / "quarantine.jsonl")
    train, heldout = _answer(config, data, seed=seed)
    policy = PolicyModel.build(config.policy.model).eval()
    nll = float(policy.teacher_nll(data.heldout, micro_batch_tokens=config.policy.pass_tokens).mean())
    del policy
    fresh = fresh_verdict(
        config.critic,
        train=(data.train, train),
        test=(data.heldout, heldout),
        prompts_per_step=_FRESH_PROMPTS_PER_STEP,
        epochs=1.0,
        seed=seed,
    )
    return Judgement(
        nll=nll,
        length_ratio=float(heldout.text_lengths.mean() / heldout.teacher_lengths.mean()),
        cut=float(np.mean([reason is StopReason.LENGTH for reason in heldout.stop_reasons])),
        distinct_1=distinct_n(heldout.texts, 1),
        distinct_2=distinct_n(heldout.texts, 2),
        fresh=fresh,
        answers={heldout.example_ids[start]: heldout.texts[start] for start, _ in heldout.groups()},
    )


def judge_apart(config: RunConfig, *, seed: int, scratch: Path) -> Judgement:
    """:func:`judge_policy` in a process of its own: an engine does not give all of its memory back."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_judge_here, config, seed, scratch).result()


def _judge_here(config: RunConfig, seed: int, scratch: Path) -> Judgement:
    Thread(target=_end_with_parent, daemon=True).start()
    return judge_policy(config, seed=seed, scratch=scratch)


def _end_with_parent() -> None:
    """A worker of a pool waits for work for ever, also when whoever gave it has been killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(config: RunConfig, data: LoadedData, *, seed: int) -> tuple[RolloutBatch, RolloutBatch]:
    """One response to every training prompt, several to every held-out one."""
    worker = RolloutWorker.build(config)

    def draw(examples: Sequence[Example], num_responses: int) -> RolloutBatch:
        sampling = SamplingSettings.of(config.rollout, num_responses=num_responses, seed=_SEED_OFFSET + seed)
        return worker.generate(PromptBatch(step=0, examples=tuple(examples)), sampling)

    try:
        return draw(data.train, 1), draw(data.heldout, _HELDOUT_RESPONSES)
    finally:
        worker.close()
