"""Forward passes in threads of their own, some of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from gad_ray.models.pairs import TokenRow
from gad_ray.serving.application.loaded_critic import RowScore, RowScorer

_CPU_PASSES = 2
"""On a CPU, threads of one pass wait for each other in every layer. Two passes with half of the threads each are done
sooner than one after the other with all; ``gad-ray bench serve throughput`` measures both."""


def passes_at_once(*, on_gpu: bool, threads: int) -> int:
    """How many passes are best under way at once.

    Args:
        on_gpu: Where they compute.
        threads: Of the process.
    """
    return 1 if on_gpu else max(1, min(_CPU_PASSES, threads))


class Passes:
    """Runs forward passes, some at once; :meth:`close` ends its threads.

    Args:
        at_once: Passes under way at once.
        threads: Of torch, for all of them together; 0 leaves to torch how many it takes.
    """

    def __init__(self, at_once: int = 1, *, threads: int = 0) -> None:
        self.at_once = at_once
        self._threads = threads
        self._under_way = 0
        self._executor = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="critic")

    async def run(self, scorer: RowScorer, rows: Sequence[TokenRow], *, alone: bool) -> list[RowScore]:
        """Score rows in one pass.

        Args:
            scorer: The critic.
            rows: The rows.
            alone: No other pass is about to begin: this one may have all threads.
        """
        share = 1 if alone and not self._under_way else self.at_once

        def score() -> list[RowScore]:
            if self._threads:
                # Of this thread alone.
                torch.set_num_threads(max(1, self._threads // share))
            return scorer.score_rows(rows)

        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, score)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Let go of the threads; what is under way goes on to its end."""
        self._executor.shutdown(wait=False)
