"""The bare forward: the same texts through the same model in a process of its own, without a server before it.

``python -m gad_ray.bench.serve.bare CRITIC PAIRS THREADS BATCH_TOKENS`` reads a line for every round, which is ``plain`` or
``served``, and answers with one line of JSON. In between it waits for input, and takes no time from others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from gad_ray.actors.process import log_tail, runtime_env
from gad_ray.batch import Message
from gad_ray.errors import GadError
from gad_ray.models.onednn_linear import PACKED_ENV
from gad_ray.models.pairs import Pair

_END_S = 30.0
_PLAIN, _SERVED = "plain", "served"


@dataclass(frozen=True, slots=True)
class BareForward:
    """The process, for the one that measures.

    Attributes:
        child: The process.
        tokens: Tokens of all pairs together.
        log: What it says.
    """

    child: subprocess.Popen[str]
    tokens: int
    log: Path

    @classmethod
    @contextmanager
    def running(
        cls, critic: Path, pairs: Sequence[Pair], *, threads: int, batch_tokens: int, out: Path
    ) -> Generator[BareForward]:
        """Start it with its pairs, and end it with the block.

        Args:
            critic: An exported critic.
            pairs: What is scored in every round.
            threads: That it computes with.
            batch_tokens: Tokens of one forward pass, padding included.
            out: Directory for its files.

        Raises:
            GadError: If it ends by itself.
        """
        file, log = out / "bare-pairs.json", out / "bare.log"
        write_pairs(file, pairs)
        arguments = [str(critic), str(file), str(threads), str(batch_tokens)]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # Threads that wait do so as those of the endpoint's replicas.
                env={**os.environ, **runtime_env(threads=threads)["env_vars"], **PACKED_ENV},
                start_new_session=True,
            ) as child,
        ):
            try:
                yield cls(child, int(_line(child, log)["tokens"]), log)
            finally:
                cast("IO[str]", child.stdin).close()
                try:
                    child.wait(_END_S)
                except subprocess.TimeoutExpired:
                    child.kill()

    def round(self, *, as_served: bool = False) -> dict[str, Any]:
        """Score all pairs once.

        Args:
            as_served: As a replica on a CPU computes: by layers that are packed, and two passes at once, which share
                the threads. Else the model is as transformers loads it, and has all threads for one pass.

        Returns:
            ``seconds`` of the forward passes, ``tokenising_s`` before them, and the ``scores``.
        """
        stdin = cast("IO[str]", self.child.stdin)
        stdin.write(f"{_SERVED if as_served else _PLAIN}\n")
        stdin.flush()
        return _line(self.child, self.log)


def write_pairs(file: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs of plain prompts for a process to read."""
    file.write_text(
        json.dumps([[pair.messages[0].content, pair.response] for pair in pairs]), encoding="utf-8"
    )


def _line(child: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    line = cast("IO[str]", child.stdout).readline()
    if not line:
        raise GadError(f"the bare forward ended and said:\n{log_tail(log)}", where=str(log))
    return json.loads(line)


def _serve_rounds(critic_dir: str, file: str, threads: int, batch_tokens: int) -> None:
    import torch

    from gad_ray.core.packing import plan_even_batches, plan_micro_batches
    from gad_ray.models.critic_export import load_critic
    from gad_ray.serving.application.forward_pool import passes_at_once

    critic = load_critic(Path(critic_dir))
    packed = load_critic(Path(critic_dir)).pack()
    texts: list[list[str]] = json.loads(Path(file).read_text(encoding="utf-8"))
    pairs = [Pair((Message(role="user", content=prompt),), response) for prompt, response in texts]
    _say({"tokens": sum(len(critic.encoder.encode(pair)) for pair in pairs)})
    for line in sys.stdin:
        as_served = line.strip() == _SERVED
        at_once = passes_at_once(on_gpu=False, threads=threads) if as_served else 1
        started = time.perf_counter()
        rows = [critic.encoder.encode(pair) for pair in pairs]
        tokenised = time.perf_counter()
        lengths = [len(row) for row in rows]
        if as_served and packed.packs:
            plans = plan_even_batches(lengths, max_tokens=batch_tokens, at_once=at_once)
        else:
            plans = plan_micro_batches(lengths, max_tokens=batch_tokens)
        batches = [[rows[int(i)] for i in plan] for plan in plans]
        scores = [0.0] * len(rows)
        score_rows = (packed if as_served else critic).score_rows
        share = max(1, threads // at_once)
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            for plan, (found, _) in zip(plans, pool.map(score_rows, batches), strict=True):
                for i, score in zip(plan, found, strict=True):
                    scores[int(i)] = float(score)
        done = time.perf_counter()
        _say({"seconds": done - tokenised, "tokenising_s": tokenised - started, "scores": scores})


def _say(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve_rounds(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
