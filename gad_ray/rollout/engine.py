"""What a rollout engine is, and the choice among them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gad_ray.auto.engine import vllm_suits
from gad_ray.batch import Float32, SamplingSettings, StopReason, WeightsSnapshot
from gad_ray.config.rollout import ENGINES, RolloutConfig
from gad_ray.errors import RolloutError
from gad_ray.models.policy import SequenceRow
from gad_ray.registry import import_object


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One response to draw.

    Attributes:
        prompt_ids: Token ids of the rendered prompt.
        seed: Seed of this response alone: what is drawn beside it does not change it on one engine.
    """

    prompt_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One drawn response.

    Attributes:
        token_ids: Sampled tokens, with the end-of-turn token if it was sampled.
        logprobs: float32 nats of each token under the distribution that it was drawn from.
        stop_reason: Why it ended.
    """

    token_ids: tuple[int, ...]
    logprobs: Float32
    stop_reason: StopReason


class GeneratorEngine(Protocol):
    """Draws responses of one policy whose weights can be replaced in place."""

    def generate(
        self, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Generation | Exception]:
        """Draw one response for every request, in order; a failed one is returned as its exception."""
        ...

    def load_weights(self, weights: WeightsSnapshot) -> None:
        """Replace the weights in place by whole ones; no generation may be under way.

        After an exception nothing is asked of the engine any more: it is closed.
        """
        ...

    def probe(self, row: SequenceRow) -> Float32:
        """[response tokens] log-probabilities (nats) that the engine gives to a row's response."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """What an engine is opened with.

    Attributes:
        model_dir: A Hugging Face directory: the policy's first weights.
        config: Precision, memory and batch size.
        stop_token_ids: Tokens that end a response.
        max_prompt_tokens: Longest rendered prompt, the probe's included.
        seed: Seed of the engine; every request carries its own besides.
    """

    model_dir: Path
    config: RolloutConfig
    stop_token_ids: Sequence[int]
    max_prompt_tokens: int
    seed: int


def open_engine(setup: EngineSetup) -> GeneratorEngine:
    """The engine that the settings name.

    Raises:
        ModelError: If the model cannot be loaded.
        RolloutError: If the engine is not installed, or cannot be imported.
    """
    name = choose_engine(setup.config)
    try:
        opener = import_object(ENGINES.get(name, name))
    except ValueError as error:
        raise RolloutError(str(error), where="rollout.engine", hint="check the path") from error
    return opener(setup)


def choose_engine(config: RolloutConfig) -> str:
    """What the config says; of one that is not settled, vLLM where it suits the device.

    Raises:
        RolloutError: If vLLM is asked for and not installed.
    """
    installed = importlib.util.find_spec("vllm") is not None
    if config.engine == "vllm" and not installed:
        raise RolloutError(
            "rollout.engine = 'vllm', but vllm is not installed",
            hint="install the extra gpu or cpu, or set rollout.engine=transformers",
        )
    if config.engine == "auto":
        return "vllm" if vllm_suits(on_gpu=config.gpus_per_worker > 0)[0] else "transformers"
    return config.engine
