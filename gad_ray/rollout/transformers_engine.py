"""Rollouts with plain transformers: slower than vLLM, and exact to the bit on repetition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gad_ray.batch import Float32, SamplingSettings, StopReason, WeightsSnapshot
from gad_ray.core.logprobs import token_logprobs
from gad_ray.core.sampling import processed_logits, sample_token
from gad_ray.models.architecture import check_keeps_cache
from gad_ray.models.arrays import from_numpy
from gad_ray.models.load import TORCH_DTYPES, load_causal_lm
from gad_ray.models.policy import SequenceRow
from gad_ray.rollout.engine import EngineSetup, Generation, GenerationRequest


def open_engine(setup: EngineSetup) -> TransformersEngine:
    """The engine ``transformers``."""
    config = setup.config
    return TransformersEngine(
        setup.model_dir,
        precision=config.dtype,
        stop_token_ids=setup.stop_token_ids,
        batch_sequences=config.at_once,
        device=torch.device("cuda" if config.gpus_per_worker > 0 else "cpu"),
    )


class TransformersEngine:
    """Decodes batches of prompts of like length, filled up in front to the longest of them."""

    def __init__(
        self,
        model_dir: Path,
        *,
        precision: str,
        stop_token_ids: Sequence[int],
        batch_sequences: int,
        device: torch.device | None = None,
    ) -> None:
        """Load the model.

        Args:
            model_dir: A Hugging Face directory.
            precision: ``float32`` or ``bfloat16``.
            stop_token_ids: Tokens that end a response.
            batch_sequences: Sequences decoded together.
            device: Where to compute; the CPU when None.
        """
        self._model: Any = load_causal_lm(model_dir, dtype=TORCH_DTYPES[precision]).to(cast(Any, device))
        check_keeps_cache(self._model, where=str(model_dir))
        self._device = device or torch.device("cpu")
        self._stop = torch.tensor(sorted(stop_token_ids), device=self._device)
        self._batch_sequences = batch_sequences

    def generate(
        self, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Generation | Exception]:
        """Draw one response for every request, in order."""
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        results: list[Generation | Exception] = [RuntimeError("was not generated")] * len(requests)
        for start in range(0, len(order), self._batch_sequences):
            chunk = order[start : start + self._batch_sequences]
            for i, result in zip(chunk, self._decode([requests[i] for i in chunk], sampling), strict=True):
                results[i] = result
        return results

    @torch.no_grad()
    def _decode(self, requests: Sequence[GenerationRequest], sampling: SamplingSettings) -> list[Generation]:
        generators = [torch.Generator(self._device).manual_seed(r.seed) for r in requests]
        rows, longest = len(requests), max(len(r.prompt_ids) for r in requests)
        inputs = torch.zeros((rows, longest), dtype=torch.int64, device=self._device)
        mask = torch.zeros_like(inputs)
        seen = torch.zeros(
            (rows, self._model.get_input_embeddings().num_embeddings), dtype=torch.bool, device=self._device
        )
        for row, request in enumerate(requests):
            prompt = torch.tensor(request.prompt_ids, device=self._device)
            inputs[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
            seen[row, prompt] = True
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        tokens: list[Tensor] = []
        logprobs: list[Tensor] = []
        running = torch.ones(rows, dtype=torch.bool, device=self._device)
        cache: Any = None
        for _ in range(sampling.max_tokens):
            out = self._model(
                input_ids=inputs,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = out.past_key_values
            logits = out.logits[:, -1].float()
            processed = processed_logits(logits, seen=seen, settings=sampling)
            token = sample_token(processed, greedy=sampling.temperature == 0.0, generators=generators)
            tokens.append(token)
            logprobs.append(token_logprobs(processed, token)[0])
            seen.scatter_(1, token[:, None], value=True)
            running &= ~torch.isin(token, self._stop)
            if not bool(running.any()):
                break
            inputs, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones((rows, 1))], dim=1)
        return [
            self._cut(t, lp) for t, lp in zip(torch.stack(tokens, 1), torch.stack(logprobs, 1), strict=True)
        ]

    def _cut(self, tokens: Tensor, logprobs: Tensor) -> Generation:
        """One row up to and with its first stop token."""
        stops = torch.isin(tokens, self._stop).nonzero()
        stopped = len(stops) > 0
        length = int(stops[0]) + 1 if stopped else len(tokens)
        return Generation(
            token_ids=tuple(tokens[:length].tolist()),
            logprobs=logprobs[:length].cpu().numpy().astype(np.float32),
            stop_reason=StopReason.STOP if stopped else StopReason.LENGTH,
        )

    @torch.no_grad()
    def load_weights(self, weights: WeightsSnapshot) -> None:
        """Replace the weights in place.

        Raises:
            KeyError: If the model has no weight of a name.
            ValueError: If one has another shape.
        """
        own = self._model.state_dict(keep_vars=True)
        for name, array in weights.tensors.items():
            if own[name].shape != array.shape:  # a copy would repeat what is too small
                raise ValueError(f"{name} has the shape {array.shape}, not {tuple(own[name].shape)}")
            own[name].data.copy_(from_numpy(array, dtype=weights.dtype))

    @torch.no_grad()
    def probe(self, row: SequenceRow) -> Float32:
        """[response tokens] log-probabilities (nats) of a row's response."""
        ids = torch.from_numpy(row.ids.astype(np.int64))[None].to(self._device)
        logits = self._model(input_ids=ids, use_cache=False).logits[0]
        chosen, _ = token_logprobs(logits[row.start - 1 : -1], ids[0, row.start :])
        return chosen.cpu().numpy().astype(np.float32)

    def close(self) -> None:
        """Let go of the model."""
        self._model = None
