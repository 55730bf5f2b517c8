"""A rollout worker: text in, :class:`RolloutBatch` out; retries, counting, and proof of new weights."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from gad_ray.batch import (
    Example,
    Message,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    WeightsSnapshot,
)
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.run import LimitsConfig, RunConfig
from gad_ray.errors import RolloutError, SyncError
from gad_ray.models.chat import ChatFormat, configured_chat_format
from gad_ray.models.load import TORCH_DTYPES, load_causal_lm, merged_state_dict
from gad_ray.models.policy import SequenceRow
from gad_ray.models.source import resolve_model
from gad_ray.rollout.adapters import MergedWeights
from gad_ray.rollout.engine import EngineSetup, Generation, GenerationRequest, GeneratorEngine, open_engine

_PROBE_PROMPT = (Message(role="user", content="Which three habits make a text easy to read, and why?"),)
_PROBE_RESPONSE = "Short sentences, plain words and one idea at a time: 3 habits that let a reader follow without going back."


def probe_row(chat: ChatFormat) -> SequenceRow:
    """The fixed text by which an engine shows that it has taken new weights."""
    prompt, response = chat.prompt_ids(_PROBE_PROMPT), chat.response_ids(_PROBE_RESPONSE)
    return SequenceRow(ids=np.asarray(prompt + response, dtype=np.int32), start=len(prompt))


def response_seed(seed: int, step: int, example_id: str, index: int) -> int:
    """Seed of one response: the same whatever worker draws it and whatever is drawn beside it."""
    digest = hashlib.sha256(f"{seed}/{step}/{example_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


def engine_setup(
    model_dir: Path, config: RolloutConfig, chat: ChatFormat, *, max_prompt_tokens: int, seed: int
) -> EngineSetup:
    """What an engine for a model is opened with.

    Args:
        model_dir: A Hugging Face directory.
        config: Which engine, and its settings.
        chat: The model's tokenizer and template.
        max_prompt_tokens: Longest rendered prompt.
        seed: Seed of the engine.
    """
    return EngineSetup(
        model_dir=model_dir,
        config=config,
        stop_token_ids=tuple(chat.stop_token_ids),
        # The probe is a prompt too.
        max_prompt_tokens=max(max_prompt_tokens, len(probe_row(chat))),
        seed=seed,
    )


@dataclass(slots=True)
class _Tally:
    """Generations of one step, over all calls for it."""

    step: int
    failed: int = 0
    asked: int = 0


class RolloutWorker:
    """Owns one engine, and serves nothing from it once an update of its weights has not come to its proven end.

    An engine may then hold weights of two versions, and some (vLLM) would not take a whole update after it: it is built
    anew.

    Args:
        engine: The engine.
        chat: The policy's tokenizer and template.
        config: Retries and tolerated failures.
        limits: The probe's tolerance.
        base: Gives the weights that adapters are put on; for a policy that sends these alone.
    """

    def __init__(
        self,
        engine: GeneratorEngine,
        chat: ChatFormat,
        config: RolloutConfig,
        limits: LimitsConfig,
        *,
        base: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self._engine = engine
        self._read_base = base
        self._base: Mapping[str, Tensor] | None = None
        self._unproven: int | None = None
        self._chat = chat
        self._config = config
        self._limits = limits
        self._version = 0
        self._tally = _Tally(step=-1)

    @classmethod
    def build(cls, config: RunConfig) -> RolloutWorker:
        """Load engine and tokenizer.

        Raises:
            ModelError: If the policy's model cannot be loaded.
            RolloutError: If the engine is not installed.
        """
        model = config.policy.model
        directory = resolve_model(model.model)
        chat = configured_chat_format(directory, model)
        limit = config.data.max_prompt_tokens
        setup = engine_setup(directory, config.rollout, chat, max_prompt_tokens=limit, seed=config.seed)

        def base() -> Mapping[str, Tensor]:
            return merged_state_dict(load_causal_lm(directory, dtype=TORCH_DTYPES[model.dtype]))

        return cls(open_engine(setup), chat, config.rollout, config.limits, base=base if model.lora else None)

    @property
    def version(self) -> int:
        """Version of the policy weights that draw the responses."""
        return self._version

    def generate(self, prompts: PromptBatch, sampling: SamplingSettings) -> RolloutBatch:
        """Draw ``sampling.num_responses`` responses to every prompt.

        A failed generation is repeated with its own seed, then counted and left out: it is never trained on.

        Raises:
            RolloutError: If more samples failed than the config allows, or the last update of the weights failed.
        """
        self._check_whole()
        started = time.perf_counter()
        owners = [example for example in prompts.examples for _ in range(sampling.num_responses)]
        requests = [
            GenerationRequest(prompt_ids=ids, seed=response_seed(sampling.seed, prompts.step, example.id, i))
            for example in prompts.examples
            for ids in [tuple(self._chat.prompt_ids(example.messages))]
            for i in range(sampling.num_responses)
        ]
        results, num_retried = self._generate_with_retries(requests, sampling)
        self._check_failures(prompts.step, results)
        kept = [
            (owner, request, result)
            for owner, request, result in zip(owners, requests, results, strict=True)
            if isinstance(result, Generation)
        ]
        return self._batch(prompts.step, kept, sampling, len(results) - len(kept), num_retried, started)

    def load_weights(self, weights: WeightsSnapshot) -> float:
        """Take new weights, and show that they took effect.

        Returns:
            The gap between the engine's and the learner's log-probabilities of the probe (nats): the largest
            in float32, the mean otherwise.

        Raises:
            SyncError: If the engine fails to take them, or the gap exceeds the tolerance. Nothing is served after that.
            RolloutError: If an update failed before.
        """
        self._check_whole()
        self._unproven = weights.version
        # The learner's tokens: a probe that each side rendered for itself could be two texts.
        probe = SequenceRow(ids=weights.probe_ids, start=weights.probe_start)
        try:
            self._engine.load_weights(self._whole(weights))
            gaps = np.abs(self._engine.probe(probe) - weights.probe_logprobs)
        except Exception as error:  # engines fail in their own ways
            raise SyncError(
                f"the engine failed while it took version {weights.version} ({error!r}), and may hold a part of it",
                where="weight sync",
                hint="see the rollout actor's log; rollout.engine=transformers tells whether the engine is at fault",
            ) from error
        exact = weights.dtype == "float32"
        gap = float(gaps.max() if exact else gaps.mean())
        tolerance = self._limits.sync_tolerance or (1e-3 if exact else 0.15)
        # Not "gap > tolerance": a gap that is not a number must not pass.
        if not gap <= tolerance:
            raise SyncError(
                f"the engine's log-probabilities of the probe differ from the learner's by {gap:.4g} nats "
                f"(tolerance {tolerance:g}) after loading version {weights.version}: the new weights did not take "
                "effect, or engine and learner compute different models",
                where="weight sync",
                hint="check that rollout.precision and the model's architecture are supported by the engine; "
                "rollout.engine=transformers tells whether the engine is at fault",
            )
        self._version, self._unproven = weights.version, None
        return gap

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _check_whole(self) -> None:
        if self._unproven is not None:
            raise RolloutError(
                f"the engine did not come to hold version {self._unproven}, and may hold parts of two",
                where="weight sync",
                hint="build the worker anew, or resume the run from its checkpoint",
            )

    def _whole(self, weights: WeightsSnapshot) -> WeightsSnapshot:
        """Whole weights, whatever came."""
        if weights.adapter_scale is None:
            return weights
        assert self._read_base is not None, "adapters come from a policy that is configured with some"
        if self._base is None:
            self._base = self._read_base()
        merged = MergedWeights(self._base, weights, scale=weights.adapter_scale)
        return replace(weights, tensors=merged, adapter_scale=None)

    def _generate_with_retries(
        self, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> tuple[list[Generation | Exception], int]:
        results = self._attempt(requests, sampling)
        num_retried = 0
        for _ in range(self._config.max_retries):
            failed = [i for i, result in enumerate(results) if isinstance(result, Exception)]
            if not failed:
                break
            num_retried += len(failed)
            again = self._attempt([requests[i] for i in failed], sampling)
            for i, result in zip(failed, again, strict=True):
                results[i] = result
        return results, num_retried

    def _attempt(
        self, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Generation | Exception]:
        try:
            return [_usable(result) for result in self._engine.generate(requests, sampling)]
        except Exception as error:  # noqa: BLE001 - engines fail in their own ways: retried, then counted
            return [error] * len(requests)

    def _check_failures(self, step: int, results: Sequence[Generation | Exception]) -> None:
        errors = [result for result in results if isinstance(result, Exception)]
        if self._tally.step != step:
            self._tally = _Tally(step=step)
        # Of the step so far: a refill asks for so few that a single failure would be a large share of its own.
        self._tally.failed += len(errors)
        self._tally.asked += len(results)
        share = self._tally.failed / self._tally.asked
        if errors and (share > self._config.max_failed_fraction or len(errors) == len(results)):
            raise RolloutError(
                f"{self._tally.failed} of {self._tally.asked} generations failed, more than rollout.max_failed_fraction = "
                f"{self._config.max_failed_fraction:g} allows; the last with: {errors[-1]!r}",
                hint="see the rollout actor's log; a smaller rollout.batch_sequences needs less memory",
            )

    def _batch(
        self,
        step: int,
        kept: Sequence[tuple[Example, GenerationRequest, Generation]],
        sampling: SamplingSettings,
        num_failed: int,
        num_retried: int,
        started: float,
    ) -> RolloutBatch:
        teacher = {owner.id: len(self._chat.response_ids(owner.teacher_response)) for owner, _, _ in kept}
        return RolloutBatch(
            step=step,
            example_ids=tuple(owner.id for owner, _, _ in kept),
            texts=tuple(self._chat.decode(result.token_ids) for _, _, result in kept),
            prompt_tokens=Ragged.from_rows([request.prompt_ids for _, request, _ in kept], np.int32),
            response_tokens=Ragged.from_rows([result.token_ids for _, _, result in kept], np.int32),
            logprobs=Ragged.from_rows([result.logprobs for _, _, result in kept], np.float32),
            stop_reasons=tuple(result.stop_reason for _, _, result in kept),
            policy_versions=np.full(len(kept), self._version, dtype=np.int64),
            sampling=sampling,
            teacher_lengths=np.asarray([teacher[owner.id] for owner, _, _ in kept], dtype=np.int32),
            num_failed=num_failed,
            num_retried=num_retried,
            seconds=time.perf_counter() - started,
        )


def _usable(result: Generation | Exception) -> Generation | Exception:
    """The result, or what is wrong with it: a response that cannot be trained on counts as failed."""
    if isinstance(result, Exception):
        return result
    if not result.token_ids:
        return RuntimeError("the engine returned a response without tokens")
    if not np.isfinite(result.logprobs).all():
        return RuntimeError("the engine returned log-probabilities that are not finite")
    return result
