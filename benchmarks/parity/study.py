"""All ways with the same pairs, and how far their scores are apart."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.parity.pairs import default_pairs, read_pairs
from benchmarks.parity.paths import (
    Scored,
    by_command,
    in_batches,
    in_training,
    one_by_one,
)
from gad_ray.bench.serve.servers import endpoint
from gad_ray.client.score_client import ScoreClient
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import load_critic
from gad_ray.models.pairs import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What was found.

    Attributes:
        ways: Every way's scores; training's first.
        dtype: Of the critic's backbone.
        tokens: Shortest and longest pair, with its prompt.
        num_left_out: Pairs of the file that were too long for the critic.
        tolerance: Largest |Δ| that is rounding.
    """

    ways: Sequence[Scored]
    dtype: str
    tokens: tuple[int, int]
    num_left_out: int
    tolerance: float

    def furthest(self, scored: Scored) -> float:
        """Largest |Δ| of a way to training; infinite where a score is none."""
        delta = np.abs(scored.scores - self.ways[0].scores)
        return float(delta.max()) if bool(np.isfinite(delta).all()) else float("inf")

    @property
    def spread(self) -> float:
        """Largest |Δ| between any two ways for one pair."""
        every = np.stack([scored.scores for scored in self.ways])
        found = np.max(every, axis=0) - np.min(every, axis=0)
        return float(found.max()) if bool(np.isfinite(found).all()) else float("inf")

    @property
    def holds(self) -> bool:
        """Whether all ways give the same scores, and equal pairs of one request exactly equal ones."""
        return self.spread <= self.tolerance and not any(scored.num_unequal for scored in self.ways)

    def table(self) -> list[list[str]]:
        """Rows of text, the head first."""
        rows = [["way", "pairs", "max |Δ| to training", "mean |Δ|", "repeated in a request", "not equal"]]
        for scored in self.ways:
            delta = np.abs(scored.scores - self.ways[0].scores)
            exact = [str(scored.num_repeated), str(scored.num_unequal)] if scored.num_repeated else ["", ""]
            rows.append(
                [
                    scored.way,
                    str(len(scored.scores)),
                    f"{self.furthest(scored):.2e}",
                    f"{float(delta.mean()):.2e}",
                    *exact,
                ]
            )
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityStudy:
    """A comparison of all ways.

    Attributes:
        critic: Directory of an exported critic.
        pairs: JSONL file with pairs; generated ones when None.
        count: Number of pairs.
        replicas: Numbers of replicas, each of a service that is started.
        endpoints: URLs of services that serve the critic already, in place of starting any.
        key_variable: Environment variable with their key.
        threads: Of each replica; 0: its share of the cores.
        tolerance: Largest |Δ| that is rounding.
        seed: Of the pairs and of the random batches.
        tell: Is told what goes on.
    """

    critic: Path
    pairs: Path | None
    count: int
    replicas: Sequence[int]
    endpoints: Sequence[str]
    key_variable: str
    threads: int
    tolerance: float
    seed: int
    tell: Callable[[str], None]

    def run(self) -> Parity:
        """Score the pairs in every way.

        Raises:
            GadError: If a way fails.
        """
        critic = load_critic(self.critic)
        pairs, left_out = self._pairs(critic)
        lengths = [len(critic.encoder.encode(pair)) for pair in pairs]
        fingerprint, dtype = critic.fingerprint().digest, critic.dtype
        self.tell(f"{len(pairs)} pairs of {min(lengths)} to {max(lengths)} tokens, by a learner")
        with torch.no_grad():
            ways = [in_training(critic, self.critic, pairs)]
        del critic
        gc.collect()  # a learner and its model are large, and what follows has models of its own
        with tempfile.TemporaryDirectory(prefix="gad-parity-") as scratch:
            self.tell("by gad-ray score")
            ways.append(by_command(self.critic, pairs, Path(scratch)))
            for url in self.endpoints:
                ways += self._over_http(url, fingerprint, pairs, where="HTTP")
            for number in () if self.endpoints else self.replicas:
                served = endpoint(critic=self.critic, replicas=number, threads=self.threads)
                with served.running(Path(scratch) / f"serve-{number}.log") as server:
                    where = f"HTTP, {number} replica{'s' if number > 1 else ''}"
                    ways += self._over_http(server.url, fingerprint, pairs, where=where)
        return Parity(
            ways=ways,
            dtype=dtype,
            tokens=(min(lengths), max(lengths)),
            num_left_out=left_out,
            tolerance=self.tolerance,
        )

    def _pairs(self, critic: CriticModel) -> tuple[list[Pair], int]:
        if self.pairs is None:
            return default_pairs(critic.encoder, self.count, seed=self.seed), 0
        return read_pairs(self.pairs, critic.encoder, count=self.count, seed=self.seed)

    def _over_http(self, url: str, fingerprint: str, pairs: Sequence[Pair], *, where: str) -> list[Scored]:
        key = os.environ.get(self.key_variable) or None
        self.tell(f"over {where}, one by one")
        with ScoreClient(url, key=key) as client:
            alone = one_by_one(client, fingerprint, pairs, where=where)
        self.tell(f"over {where}, in random batches")

        async def together() -> Scored:
            async with ScoreClient(url, key=key) as client:
                return await in_batches(client, fingerprint, pairs, where=where, seed=self.seed)

        return [alone, asyncio.run(together())]
