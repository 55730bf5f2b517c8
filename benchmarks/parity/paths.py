"""The ways by which a pair gets its score."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.parity.pairs import as_rows
from gad_ray.batch import (
    Example,
    Float32,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    StopReason,
)
from gad_ray.bench.process import exit_code
from gad_ray.client.request_split import Part, parts_of
from gad_ray.client.retry import TooMuchError
from gad_ray.client.score_client import ScoreClient
from gad_ray.config.critic import CriticConfig
from gad_ray.config.models import ModelConfig
from gad_ray.errors import GadError, ModelError
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import Pair
from gad_ray.observability.jsonl import read_lines

_REPEATED = 0.2
"""Share of the pairs that are asked for once more in the same request."""

_LARGEST_BATCH = 48
_AT_ONCE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What one way gave.

    Attributes:
        way: Its name.
        scores: [N] float32, in the order of the pairs.
        num_repeated: Pairs that stood in one request more than once.
        num_unequal: Those of them whose scores were not equal to the last bit.
    """

    way: str
    scores: Float32
    num_repeated: int = 0
    num_unequal: int = 0


def in_training(critic: CriticModel, directory: Path, pairs: Sequence[Pair]) -> Scored:
    """By a learner, as the critic's actor has it: each pair is the policy's response in a step of its own prompts.

    Args:
        critic: The exported critic.
        directory: Where it is.
        pairs: The pairs.

    Raises:
        ModelError: If the learner's critic is not the one that was exported.
    """
    learner = CriticLearner(
        CriticConfig(
            model=ModelConfig.model_validate({"model": str(directory), "compute": critic.dtype}),
            pooling=critic.pooling,
            max_tokens=critic.encoder.max_tokens,
            micro_batch_tokens=16384,
        ),
        seed=0,
        total_steps=1,
        collective=LocalCollective(),
        max_nonfinite_steps=0,
    )
    learner.model.head.load_state_dict(critic.head.state_dict())
    learner.model.updates = critic.updates
    differing = learner.fingerprint().differing(critic.fingerprint())
    if differing:
        raise ModelError(
            f"a learner that is given this critic has another {' and '.join(differing)}", where=str(directory)
        )
    prompts, rollouts = _as_step(pairs)
    return Scored(way="training", scores=learner.score_batch(prompts, rollouts).student)


def by_command(directory: Path, pairs: Sequence[Pair], scratch: Path) -> Scored:
    """By ``gad-ray score``, from a file and into a file.

    Raises:
        GadError: If the command fails.
    """
    source, out = scratch / "pairs.jsonl", scratch / "scored.jsonl"
    source.write_text(as_rows(pairs), encoding="utf-8")
    command = [sys.executable, "-m", "gad_ray", "score", "--critic", str(directory)]
    code = exit_code([*command, "--in", str(source), "--out", str(out)])
    if code != 0:
        raise GadError(f"gad-ray score ended with {code}", hint="see what it said above")
    rows = read_lines(out).rows
    return Scored(way="gad-ray score", scores=_as_array([row["score"] for row in rows]))


def one_by_one(client: ScoreClient, fingerprint: str, pairs: Sequence[Pair], *, where: str) -> Scored:
    """Over HTTP, every pair in a request of its own, one after the other.

    Raises:
        GadError: If a request fails, or another critic answers.
    """
    found = [score for pair in pairs for score in client.score_pairs([pair])]
    _check({score.fingerprint for score in found}, fingerprint)
    return Scored(way=f"{where}, one by one", scores=_as_array([score.value for score in found]))


async def in_batches(
    client: ScoreClient, fingerprint: str, pairs: Sequence[Pair], *, where: str, seed: int
) -> Scored:
    """Over HTTP, in requests of random sizes, several at once, some pairs twice in one request.

    The requests go as they are put together here: the client itself asks for equal pairs once.

    Raises:
        GadError: If a request fails, or another critic answers.
    """
    draw = random.Random(seed)
    order = list(range(len(pairs)))
    draw.shuffle(order)
    requests: list[Part] = []
    asked: list[int] = []
    while order:
        size = draw.randint(1, _LARGEST_BATCH)
        members, order = order[:size], order[size:]
        members += [place for place in members if draw.random() < _REPEATED]
        draw.shuffle(members)
        parts = parts_of([pairs[i] for i in members], {}, max_pairs=len(members), max_characters=sys.maxsize)
        requests += [replace(part, places=tuple(len(asked) + i for i in part.places)) for part in parts]
        asked += members
    gate = asyncio.Semaphore(_AT_ONCE)
    scores = np.full(len(pairs), np.nan, dtype=np.float32)
    repeated = unequal = 0

    async def ask(part: Part) -> None:
        nonlocal repeated, unequal
        try:
            async with gate:
                found = await client.send_async(part)
        except TooMuchError:
            for half in part.halves():
                await ask(half)
            return
        _check({found.model_version.fingerprint}, fingerprint)
        values: dict[int, set[float]] = {}
        for number, item in zip(part.places, found.data, strict=True):
            values.setdefault(asked[number], set()).add(item.score)
            scores[asked[number]] = item.score
        repeated += len(part.places) - len(values)
        unequal += sum(len(one) > 1 for one in values.values())

    await asyncio.gather(*map(ask, requests))
    return Scored(way=f"{where}, random batches", scores=scores, num_repeated=repeated, num_unequal=unequal)


def _as_array(values: Sequence[float]) -> Float32:
    return np.asarray(values, dtype=np.float32)


def _check(found: set[str], fingerprint: str) -> None:
    if found != {fingerprint}:
        raise GadError(
            f"the endpoint answered with another critic, {', '.join(sorted(f[:16] for f in found))}",
            hint="serve the critic that --critic names",
        )


def _as_step(pairs: Sequence[Pair]) -> tuple[PromptBatch, RolloutBatch]:
    """A step whose teacher has said what the policy said: a pair is one row of its group, as equal texts are.

    Its tokens would be the policy's, and stand for nothing: a critic reads text.
    """
    names = tuple(f"pair-{number}" for number in range(len(pairs)))
    examples = tuple(
        Example(id=name, messages=pair.messages, teacher_response=pair.response)
        for name, pair in zip(names, pairs, strict=True)
    )
    tokens = Ragged.from_rows([[0]] * len(pairs), np.int32)
    rollouts = RolloutBatch(
        step=1,
        example_ids=names,
        texts=tuple(pair.response for pair in pairs),
        prompt_tokens=tokens,
        response_tokens=tokens,
        logprobs=Ragged.from_rows([[0.0]] * len(pairs), np.float32),
        stop_reasons=(StopReason.STOP,) * len(pairs),
        policy_versions=np.zeros(len(pairs), dtype=np.int64),
        sampling=SamplingSettings(
            num_responses=1, temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1, seed=0
        ),
        teacher_lengths=np.ones(len(pairs), dtype=np.int32),
    )
    return PromptBatch(step=1, examples=examples), rollouts
