"""Rollout workers and learner ranks that sleep where others compute; neither loads torch."""

from __future__ import annotations

import os
import sys
import threading
import time
import zlib
from dataclasses import dataclass

import numpy as np
import psutil
import ray

from gad_ray.actors.rollouts import Rollouts
from gad_ray.batch import (
    PromptBatch,
    Ragged,
    RolloutBatch,
    RolloutReceipt,
    SamplingSettings,
    ScoreBatch,
    StopReason,
    TrainBatch,
    TrainStats,
    WeightsReceipt,
    WeightsSnapshot,
)

CHARS_PER_TOKEN = 3.7
_PROMPT_TOKENS = 256
_WORDS = "The third of these habits is the hardest one to keep — “plain words” are found last, and only by rereading. "


def text_of(tokens: int) -> str:
    """About as much English text as so many tokens are, with the typographic marks that models write."""
    chars = int(tokens * CHARS_PER_TOKEN)
    return (_WORDS * (chars // len(_WORDS) + 1))[:chars]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What actors do in place of computing.

    Attributes:
        tokens: Of each response.
        weights_bytes: Of the policy's weights.
        rollout_s: Seconds of a generation.
        critic_s: Seconds of the critic's update, scores among them.
        policy_s: Seconds of the policy's update.
        sync_s: Seconds in which an engine takes new weights.
        reads: Learners read every byte that they get.
    """

    tokens: int
    weights_bytes: int
    rollout_s: float = 0.0
    critic_s: float = 0.0
    policy_s: float = 0.0
    sync_s: float = 0.0
    reads: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a process has done so far.

    Attributes:
        calls: Messages that it was sent.
        sent_bytes: Token ids, log-probabilities and text that it put into the object store.
        read_bytes: The same of what it was given, and read where learners read.
        copied_bytes: Of the arrays that it read, those that no longer lay in the object store.
        memory_bytes: Private memory.
        has_torch: Whether torch was loaded.
    """

    calls: int
    sent_bytes: int
    read_bytes: int
    copied_bytes: int
    memory_bytes: int
    has_torch: bool


class _Host:
    """A process in which several logical actors answer, each call in a thread of its own."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._lock = threading.Lock()
        self._calls = self._sent = self._read = self._copied = 0

    @ray.method
    def setup(self) -> int:
        """The process id."""
        return os.getpid()

    @ray.method
    def told(self) -> Told:
        """What was done so far."""
        return Told(
            calls=self._calls,
            sent_bytes=self._sent,
            read_bytes=self._read,
            copied_bytes=self._copied,
            memory_bytes=psutil.Process().memory_full_info().uss,
            has_torch="torch" in sys.modules,
        )

    def count(self, *, sent: int = 0, read: int = 0, copied: int = 0) -> None:
        """Note one message, and what came of it."""
        with self._lock:
            self._calls += 1
            self._sent += sent
            self._read += read
            self._copied += copied


class RolloutHost(_Host):
    """Rollout workers: they assemble batches of what an engine gives, and sleep where it would generate."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        rng = np.random.default_rng(0)
        # As engines give them: Python's integers, an array of log-probabilities.
        self._ids = tuple(int(i) for i in rng.integers(0, 50_000, simulation.tokens))
        self._logprobs = -rng.random(simulation.tokens, dtype=np.float32)
        self._text = text_of(simulation.tokens)
        self._version = 0

    @ray.method(num_returns=2)
    def generate(
        self, prompts: PromptBatch, sampling: SamplingSettings
    ) -> tuple[RolloutBatch, RolloutReceipt]:
        """Responses to every prompt."""
        started = time.perf_counter()
        time.sleep(self._simulation.rollout_s)
        each = sampling.num_responses
        count = len(prompts) * each
        batch = RolloutBatch(
            step=prompts.step,
            example_ids=tuple(example.id for example in prompts.examples for _ in range(each)),
            # No two texts are one object: pickle would write it once.
            texts=tuple(f"{i} {self._text}" for i in range(count)),
            prompt_tokens=Ragged.from_rows([self._ids[:_PROMPT_TOKENS]] * count, np.int32),
            response_tokens=Ragged.from_rows([self._ids] * count, np.int32),
            logprobs=Ragged.from_rows([self._logprobs] * count, np.float32),
            stop_reasons=(StopReason.STOP,) * count,
            policy_versions=np.full(count, self._version, dtype=np.int64),
            sampling=sampling,
            teacher_lengths=np.full(count, self._simulation.tokens, dtype=np.int32),
            seconds=time.perf_counter() - started,
        )
        self.count(sent=_size(batch) + sum(len(text.encode()) for text in batch.texts))
        return batch, RolloutReceipt.of(batch)

    @ray.method
    def load_weights(self, weights: WeightsSnapshot) -> float:
        """Take new weights."""
        time.sleep(self._simulation.sync_s)
        self._version = weights.version
        self.count()
        return 0.0


class LearnerHost(_Host):
    """Ranks of critic and policy."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._version = 0
        self._weights = np.zeros(simulation.weights_bytes // 4, dtype=np.float32)

    @ray.method(num_returns=2)
    def score_and_update(
        self, recorded: bool, prompts: PromptBatch, rollouts: Rollouts
    ) -> tuple[ScoreBatch, TrainStats]:
        """Scores at random; see :meth:`gad_ray.actors.critic.CriticActor.score_and_update`."""
        del recorded
        joined = rollouts.join()
        read, copied = self._look_at(joined)
        if self._simulation.reads:
            read += sum(map(_read_text, joined.texts))
        seconds = self._sleep(self._simulation.critic_s)
        self.count(read=read, copied=copied)
        rng = np.random.default_rng(joined.step)
        student, teacher = rng.random((2, len(joined)), dtype=np.float32)
        scores = ScoreBatch(student=student, teacher=teacher, critic_version=prompts.step)
        return scores, TrainStats(metrics={"timing_s/score": 0.0}, num_steps=1, seconds=seconds)

    @ray.method
    def update(self, batch: TrainBatch) -> TrainStats:
        """One step of the game."""
        read, copied = self._look_at(batch)
        seconds = self._sleep(self._simulation.policy_s)
        self._version += 1
        self.count(read=read, copied=copied)
        return TrainStats(metrics={}, num_steps=1, seconds=seconds)

    @ray.method(num_returns=2)
    def snapshot(self, perturbation: float) -> tuple[WeightsSnapshot, WeightsReceipt]:
        """The weights for the rollout engines, and what the controller is told of them."""
        del perturbation
        nothing = np.zeros(1, dtype=np.int32)
        weights = WeightsSnapshot(
            version=self._version,
            dtype="float32",
            tensors={"weights": self._weights},
            probe_ids=nothing,
            probe_start=0,
            probe_logprobs=nothing.astype(np.float32),
        )
        self.count()
        return weights, WeightsReceipt(version=weights.version, num_bytes=weights.num_bytes)

    def _look_at(self, batch: RolloutBatch | TrainBatch) -> tuple[int, int]:
        """Bytes of a batch's arrays, and of those among them that are no longer the object store's; all are read."""
        arrays = _arrays(batch)
        if self._simulation.reads:
            for values in arrays:
                values.sum()
        return _size(batch), sum(values.nbytes for values in arrays if values.flags.writeable)

    def _sleep(self, seconds: float) -> float:
        started = time.perf_counter()
        time.sleep(seconds)
        return time.perf_counter() - started


def _arrays(batch: RolloutBatch | TrainBatch) -> list[np.ndarray]:
    return [ragged.values for ragged in (batch.prompt_tokens, batch.response_tokens, batch.logprobs)]


def _size(batch: RolloutBatch | TrainBatch) -> int:
    return sum(values.nbytes for values in _arrays(batch))


def _read_text(text: str) -> int:
    encoded = text.encode()
    zlib.crc32(encoded)
    return len(encoded)
