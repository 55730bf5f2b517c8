"""A rollout engine of one's own: transformers' ``generate``, a prompt at a time. See docs/extending/engine.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gad_ray.batch import Float32, SamplingSettings, StopReason, WeightsSnapshot
from gad_ray.models.arrays import from_numpy
from gad_ray.models.load import TORCH_DTYPES, load_causal_lm
from gad_ray.models.policy import SequenceRow
from gad_ray.rollout.engine import EngineSetup, Generation, GenerationRequest


def open_engine(setup: EngineSetup) -> GenerateEngine:
    """What ``rollout.engine`` names."""
    return GenerateEngine(setup)


class GenerateEngine:
    """Implements :class:`gad_ray.rollout.engine.GeneratorEngine`."""

    def __init__(self, setup: EngineSetup) -> None:
        self._model: Any = load_causal_lm(setup.model_dir, dtype=TORCH_DTYPES[setup.config.dtype])
        self._stop = sorted(setup.stop_token_ids)

    def generate(
        self, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Generation | Exception]:
        """A failed request is given back as its exception: the worker asks again, and counts it."""
        found: list[Generation | Exception] = []
        for request in requests:
            try:
                found.append(self._one(request, sampling))
            except RuntimeError as error:
                found.append(error)
        return found

    @torch.no_grad()
    def _one(self, request: GenerationRequest, sampling: SamplingSettings) -> Generation:
        prompt = torch.tensor([request.prompt_ids])
        drawn = {"do_sample": False}  # temperature 0 is greedy
        if sampling.temperature > 0.0:
            drawn = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": 0,
            }
        with torch.random.fork_rng():
            torch.manual_seed(request.seed)
            out = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                **drawn,
                repetition_penalty=sampling.repetition_penalty,
                max_new_tokens=sampling.max_tokens,
                eos_token_id=self._stop,
                pad_token_id=self._stop[0],
                return_dict_in_generate=True,
                output_scores=True,
            )
        tokens = out.sequences[0, prompt.shape[1] :]
        # The scores are those that were drawn from: after penalty, temperature and nucleus.
        logprobs = torch.cat(out.scores).float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        ended = int(tokens[-1]) in self._stop
        return Generation(
            token_ids=tuple(tokens.tolist()),
            logprobs=logprobs.numpy(),
            stop_reason=StopReason.STOP if ended else StopReason.LENGTH,
        )

    @torch.no_grad()
    def load_weights(self, weights: WeightsSnapshot) -> None:
        """In place; the run then compares :meth:`probe` with what the policy gives to the same text."""
        own = self._model.state_dict(keep_vars=True)
        for name, array in weights.tensors.items():
            own[name].data.copy_(from_numpy(array, dtype=weights.dtype))

    @torch.no_grad()
    def probe(self, row: SequenceRow) -> Float32:
        """Log-probabilities of a row's response, of the raw distribution."""
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        logprobs = self._model(ids).logits[0].float().log_softmax(-1)
        return logprobs[row.start - 1 : -1].gather(-1, ids[0, row.start :, None])[:, 0].numpy()

    def close(self) -> None:
        """Nothing is held but the model."""
        self._model = None
