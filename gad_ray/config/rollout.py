"""How the policy's responses are drawn, and by which engine."""

from __future__ import annotations

from pydantic import Field, field_validator

from gad_ray.config.base import Precision, PrecisionChoice, SizeChoice, resolved, settled
from gad_ray.registry import is_import_path
from gad_ray.strict_model import StrictModel

ENGINES = {
    "vllm": "gad_ray.rollout.vllm_engine:open_engine",
    "transformers": "gad_ray.rollout.transformers_engine:open_engine",
}
"""Packaged engine → import path of what opens it."""


class RolloutConfig(StrictModel):
    """Sampling settings, the engine, and the rollout workers."""

    engine: str = "auto"
    """``vllm``, ``transformers``, or ``auto``: the one that was faster in earlier runs on this machine, or vLLM where it is
    installed if they do not tell. One of your own by the import path ``module:function`` of what opens it
    (docs/extending/engine.md)."""

    responses_per_prompt: int = Field(default=8, ge=1)
    """Responses drawn for each prompt: the group."""

    temperature: float = Field(default=0.8, ge=0.0, le=10.0)
    """Sampling temperature; 0 is greedy. The policy's log-probabilities, KL and entropy are those at it."""

    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Nucleus: the smallest set of tokens with this probability mass. Below 1 the game needs ``accept_biased_gradient``."""

    repetition_penalty: float = Field(default=1.0, gt=0.0, le=10.0)
    """Divides the logits of tokens that have occurred; 1 is off, and else the game needs ``accept_biased_gradient``."""

    accept_biased_gradient: bool = False
    """Play the game with a nucleus or a repetition penalty all the same. The policy gradient is that of the policy at
    ``temperature``; responses drawn from another distribution bias it, and entropy drifts. With ``policy.importance`` what
    was drawn is weighed rightly, but what a nucleus never draws stays unseen."""

    max_response_tokens: int = Field(default=1536, ge=1)
    """Longest response; a longer one is cut and marked as such."""

    precision: PrecisionChoice = "auto"
    """Precision of the engine's weights; ``auto``: the one that this machine is faster in, measured when a run begins."""

    num_workers: int = Field(default=1, ge=1)
    """Rollout actors; each answers its share of a step's prompts."""

    cpus_per_worker: float = Field(default=1.0, gt=0.0)
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    threads: int | None = Field(default=None, ge=1)
    """Threads per worker; absent: the machine's cores, shared by workers that run at the same time."""

    batch_sequences: SizeChoice = "auto"
    """Sequences that one engine decodes together; ``auto``: a step's responses, as far as their keys and values fit."""

    max_retries: int = Field(default=2, ge=0)
    """Times that a failed generation is repeated before its sample is counted as failed and left out."""

    max_failed_fraction: float = Field(default=0.2, ge=0.0, lt=1.0)
    """Share of failed samples in a step above which the run stops."""

    gpu_memory_utilization: float = Field(default=0.4, gt=0.0, le=1.0)
    """vLLM on a GPU: share of its memory that the engine may take."""

    kv_cache_gib: float = Field(default=1.0, gt=0.0)
    """vLLM on a CPU: GiB of keys and values, which are taken at once."""

    @field_validator("engine")
    @classmethod
    def _is_an_engine(cls, value: str) -> str:
        if value not in ("auto", *ENGINES) and not is_import_path(value):
            raise ValueError(
                f"no such engine; take auto, {', '.join(ENGINES)}, or module:function for your own"
            )
        return value

    @property
    def dtype(self) -> Precision:
        """``precision``, once it is settled.

        Raises:
            ConfigError: If it is ``auto`` still.
        """
        return resolved(self.precision, key="rollout.precision")

    @property
    def at_once(self) -> int:
        """``batch_sequences``, once it is settled.

        Raises:
            ConfigError: If it is ``auto`` still.
        """
        return settled(self.batch_sequences, key="rollout.batch_sequences")
