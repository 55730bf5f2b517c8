"""How long an engine takes over new weights, beside one copy of as many bytes in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from gad_ray.batch import WeightsSnapshot
from gad_ray.config import Precision, RolloutConfig
from gad_ray.learners.weights import arrays_of
from gad_ray.models.chat import load_chat_format
from gad_ray.models.load import TORCH_DTYPES, load_causal_lm, merged_state_dict
from gad_ray.models.source import resolve_model
from gad_ray.rollout.engine import choose_engine, open_engine
from gad_ray.rollout.worker import engine_setup, probe_row


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFigures:
    """What was measured: seconds of every round.

    Attributes:
        engine: The engine's name.
        precision: Of its weights.
        num_bytes: Bytes of the weights, tied ones once.
        copy: One copy of so many bytes between buffers that are in memory.
        load: The engine takes the weights over.
        probe: It computes the probe, as it does at every sync.
    """

    engine: str
    precision: Precision
    num_bytes: int
    copy: tuple[float, ...]
    load: tuple[float, ...]
    probe: tuple[float, ...]

    def ratio(self, seconds: Sequence[float]) -> float:
        """Median time in copies."""
        return median(seconds) / median(self.copy)

    def table(self) -> list[tuple[str, str, str, str]]:
        """Rows for the terminal, the head first."""
        told = {"one copy of the bytes": self.copy, "load": self.load, "probe": self.probe}
        return [
            ("", "median s", "least to most", "copies"),
            *(
                (name, f"{median(s):.3f}", f"{min(s):.3f} to {max(s):.3f}", f"{self.ratio(s):.1f}")
                for name, s in told.items()
            ),
        ]


def measure_sync(model: str, *, engine: str, precision: Precision, rounds: int) -> SyncFigures:
    """Measure in this process; a first round does not count.

    Args:
        model: The policy's model, as recipes name models.
        engine: As ``rollout.engine``.
        precision: Of the engine's weights.
        rounds: Rounds that count; each measures everything once.

    Raises:
        GadError: If the model or the engine cannot be loaded.
    """
    directory = resolve_model(model)
    config = RolloutConfig(engine=engine, precision=precision, max_response_tokens=64, batch_sequences=1)
    chat = load_chat_format(directory)
    probe = probe_row(chat)
    weights: Any = load_causal_lm(directory, dtype=TORCH_DTYPES[precision])
    snapshot = WeightsSnapshot(
        version=1,
        dtype=precision,
        tensors=arrays_of(merged_state_dict(weights)),
        probe_ids=probe.ids,
        probe_start=probe.start,
        probe_logprobs=np.zeros(0, dtype=np.float32),
    )
    source, target = np.ones(snapshot.num_bytes, np.uint8), np.ones(snapshot.num_bytes, np.uint8)
    opened = open_engine(engine_setup(directory, config, chat, max_prompt_tokens=64, seed=0))
    parts: dict[str, Callable[[], object]] = {
        "copy": lambda: np.copyto(target, source),
        "load": lambda: opened.load_weights(snapshot),
        "probe": lambda: opened.probe(probe),
    }
    try:
        seconds = [{name: _seconds(part) for name, part in parts.items()} for _ in range(rounds + 1)][1:]
    finally:
        opened.close()
    return SyncFigures(
        engine=choose_engine(config),
        precision=precision,
        num_bytes=snapshot.num_bytes,
        copy=tuple(one["copy"] for one in seconds),
        load=tuple(one["load"] for one in seconds),
        probe=tuple(one["probe"] for one in seconds),
    )


def _seconds(part: Callable[[], object]) -> float:
    started = time.perf_counter()
    part()
    return time.perf_counter() - started
