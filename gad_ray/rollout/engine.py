"""What a rollout engine is, and the choice among them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gad_ray.batch import Float32, SamplingSettings, StopReason, WeightsSnapshot
from gad_ray.config.rollout import RolloutConfig
from gad_ray.errors import RolloutError
from gad_ray.models.policy import SequenceRow


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
        """Replace the weights in place; no generation may be under way."""
        ...

    def probe(self, row: SequenceRow) -> Float32:
        """[response tokens] log-probabilities (nats) that the engine gives to a row's response."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


def choose_engine(config: RolloutConfig) -> str:
    """``vllm`` or ``transformers``: what the config says, or what is installed.

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
        return "vllm" if installed else "transformers"
    return config.engine
