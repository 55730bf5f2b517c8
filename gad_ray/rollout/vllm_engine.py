"""Rollouts with vLLM, which takes new weights out of memory that is shared."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from gad_ray.batch import Float32, SamplingSettings, StopReason, WeightsSnapshot
from gad_ray.config.rollout import RolloutConfig
from gad_ray.machine import GIB
from gad_ray.models.arrays import from_numpy
from gad_ray.models.policy import SequenceRow
from gad_ray.rollout.engine import EngineSetup, Generation, GenerationRequest
from gad_ray.rollout.weight_transfer import BACKEND, WORKER_EXTENSION, in_shared_memory


def prepare_environment() -> None:
    """Set what vLLM reads from the environment; to be called before its first import."""
    # In one process, weights are taken from where they lie in the object store; in two they are copied once more.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Its warnings are about choices made here (eager mode, no tokenizer, one process), and some come with a traceback.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    # On a CPU: leave placement of threads to the operating system, several actors share the cores.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def open_engine(setup: EngineSetup) -> VllmEngine:
    """The engine ``vllm``."""
    return VllmEngine(
        setup.model_dir,
        setup.config,
        stop_token_ids=setup.stop_token_ids,
        max_prompt_tokens=setup.max_prompt_tokens,
        seed=setup.seed,
    )


class VllmEngine:
    """A vLLM engine: in this process, or in its own where ``VLLM_ENABLE_V1_MULTIPROCESSING=1``."""

    def __init__(
        self,
        model_dir: Path,
        config: RolloutConfig,
        *,
        stop_token_ids: Sequence[int],
        max_prompt_tokens: int,
        seed: int,
    ) -> None:
        """Start the engine.

        Args:
            model_dir: A Hugging Face directory.
            config: Precision, memory and batch size.
            stop_token_ids: Tokens that end a response.
            max_prompt_tokens: Longest rendered prompt.
            seed: Seed of the engine; every request carries its own besides.
        """
        prepare_environment()
        from vllm import LLM, envs

        self._is_apart: bool = envs.VLLM_ENABLE_V1_MULTIPROCESSING
        self._stop = list(stop_token_ids)
        self._llm: Any = LLM(
            model=str(model_dir),
            dtype=config.dtype,
            skip_tokenizer_init=True,
            enforce_eager=config.gpus_per_worker == 0.0,
            max_model_len=max_prompt_tokens + config.max_response_tokens,
            max_num_seqs=config.at_once,
            gpu_memory_utilization=config.gpu_memory_utilization,
            kv_cache_memory_bytes=None if config.gpus_per_worker > 0 else int(config.kv_cache_gib * GIB),
            enable_prefix_caching=True,
            # Of the distribution that is sampled: after penalty, temperature and top-p.
            logprobs_mode="processed_logprobs",
            seed=seed,
            disable_log_stats=True,
            use_tqdm_on_load=False,
            weight_transfer_config={"backend": BACKEND},
            worker_extension_cls=WORKER_EXTENSION,
        )
        self._llm.init_weight_transfer_engine({"init_info": {}})

    def generate(
        self, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Generation | Exception]:
        """Draw one response for every request, in order."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                repetition_penalty=sampling.repetition_penalty,
                max_tokens=sampling.max_tokens,
                seed=request.seed,
                # The tokens that end a response are these alone, whatever the model's files say.
                stop_token_ids=self._stop,
                ignore_eos=True,
                logprobs=0,
                detokenize=False,
            )
            for request in requests
        ]
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
        return [_generation(output) for output in outputs]

    def load_weights(self, weights: WeightsSnapshot) -> None:
        """Replace the weights in place."""
        views = ((name, from_numpy(array, dtype=weights.dtype)) for name, array in weights.tensors.items())
        self._llm.start_weight_update()
        if self._is_apart:
            with in_shared_memory(views) as mapped:
                self._llm.update_weights({"update_info": {"mapped": asdict(mapped)}})
        else:
            self._llm.update_weights({"update_info": {"views": views}})
        self._llm.finish_weight_update(str(weights.version))
        # Cached keys and values belong to the old weights.
        self._llm.reset_prefix_cache()

    def probe(self, row: SequenceRow) -> Float32:
        """[response tokens] log-probabilities (nats) of a row's response."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        prompt = {"prompt_token_ids": row.ids.tolist()}
        output = self._llm.generate([prompt], parameters, use_tqdm=False)[0]
        given = cast("list[dict[int, Any] | None]", output.prompt_logprobs)[row.start :]
        values = [
            cast("dict[int, Any]", entry)[int(token)].logprob
            for entry, token in zip(given, row.ids[row.start :], strict=True)
        ]
        return np.asarray(values, dtype=np.float32)

    def close(self) -> None:
        """Let go of the model."""
        self._llm = None
        gc.collect()


def _generation(output: Any) -> Generation | Exception:
    completion = output.outputs[0]
    tokens = tuple(int(t) for t in completion.token_ids)
    if completion.finish_reason not in ("stop", "length") or not tokens or completion.logprobs is None:
        return RuntimeError(
            f"vLLM ended a request with {completion.finish_reason!r} and {len(tokens)} tokens"
        )
    logprobs = [entry[token].logprob for entry, token in zip(completion.logprobs, tokens, strict=True)]
    return Generation(
        token_ids=tokens,
        logprobs=np.asarray(logprobs, dtype=np.float32),
        stop_reason=StopReason.STOP if completion.finish_reason == "stop" else StopReason.LENGTH,
    )
