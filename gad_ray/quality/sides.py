"""The student's side where rows have none: a policy answers, a critic scores. In this process, without Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gad_ray.batch import Example, Message, PromptBatch, SamplingSettings, StopReason
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.run import LimitsConfig
from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.data.layout import opened_thought
from gad_ray.data.validate import content_id
from gad_ray.errors import DataError, ModelError
from gad_ray.models.chat import ChatFormat, load_chat_format
from gad_ray.models.pairs import Pair
from gad_ray.models.source import describe_model, resolve_model
from gad_ray.quality.settings import PolicySettings
from gad_ray.rollout.engine import open_engine
from gad_ray.rollout.worker import RolloutWorker, engine_setup

_logger = logging.getLogger(__name__)

_AT_ONCE = 64
_PROMPTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentAnswer:
    """One answer of the policy."""

    text: str
    cut: bool


class PolicySide:
    """A policy's tokenizer, and its answers; weights are loaded only when it answers.

    Raises:
        ModelError: If there is no such model, or it has no chat template.
    """

    def __init__(self, settings: PolicySettings, *, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._directory = resolve_model(settings.model)
        self._chat: ChatFormat = load_chat_format(self._directory, chat_template=settings.chat_template)

    def num_tokens(self, text: str) -> int:
        """Length of a text in the policy's tokens, without template and end of turn."""
        return len(self._chat.response_ids(text))

    def num_prompt_tokens(self, messages: tuple[Message, ...]) -> int:
        """Length of a conversation in the policy's tokens, chat template included.

        Raises:
            DataError: If the template refuses it.
        """
        return len(self._chat.prompt_ids(messages))

    def opened_thought(self) -> str | None:
        """The mark with which the template opens a thought after every prompt; None if it does not."""
        return opened_thought(self._chat.prompt_text)

    def answer(self, examples: Sequence[Example]) -> Iterator[StudentAnswer | None]:
        """One answer to each prompt, in order; None for a prompt too long for the model, or that failed.

        Raises:
            ModelError: If the weights cannot be loaded, or no prompt leaves room for an answer.
            RolloutError: If too many generations fail, or the engine is not installed.
        """
        lengths = [len(self._chat.prompt_ids(example.messages)) for example in examples]
        positions = describe_model(str(self._directory)).architecture.max_positions
        if positions is None:
            _logger.warning(
                "warning: the config of %s does not say how long a sequence it takes: prompts are not checked against it",
                self._settings.model,
            )
        fits = [positions is None or n + self._settings.max_tokens <= positions for n in lengths]
        if not any(fits):
            raise ModelError(
                f"it was made for {positions} tokens, and no prompt leaves room for {self._settings.max_tokens} of an "
                f"answer: the shortest has {min(lengths)}",
                where=self._settings.model,
                hint="lower --max-tokens",
            )
        worker = self._worker(max(n for n, fit in zip(lengths, fits, strict=True) if fit))
        try:
            for start in range(0, len(examples), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                yield from self._answer_some(worker, examples[part], fits[part])
        finally:
            worker.close()

    def _answer_some(
        self, worker: RolloutWorker, examples: Sequence[Example], fits: Sequence[bool]
    ) -> list[StudentAnswer | None]:
        # Ids of their own, by content: a file may give one id twice, and seeds go by it.
        ids = [content_id(example.messages, example.teacher_response) for example in examples]
        asked = [replace(e, id=i) for e, i, fit in zip(examples, ids, fits, strict=True) if fit]
        answers: dict[str, StudentAnswer] = {}
        if asked:
            batch = worker.generate(PromptBatch(step=0, examples=tuple(asked)), self._sampling())
            for own_id, text, reason in zip(batch.example_ids, batch.texts, batch.stop_reasons, strict=True):
                answers[own_id] = StudentAnswer(text=text, cut=reason is StopReason.LENGTH)
        return [answers.get(own_id) for own_id in ids]

    def _sampling(self) -> SamplingSettings:
        return SamplingSettings(
            num_responses=1,
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            repetition_penalty=1.0,
            max_tokens=self._settings.max_tokens,
            seed=self._seed,
        )

    def _worker(self, max_prompt_tokens: int) -> RolloutWorker:
        import torch

        # vLLM says much, and on standard output, where the report or its JSON goes.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        on_gpu = torch.cuda.is_available()
        config = RolloutConfig(
            engine=self._settings.engine,
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            max_response_tokens=self._settings.max_tokens,
            precision="bfloat16" if on_gpu else "float32",
            gpus_per_worker=1.0 if on_gpu else 0.0,
            batch_sequences=_AT_ONCE,
        )
        setup = engine_setup(
            self._directory, config, self._chat, max_prompt_tokens=max_prompt_tokens, seed=self._seed
        )
        return RolloutWorker(open_engine(setup), self._chat, config, LimitsConfig())


class CriticSide:
    """An exported critic, on the GPU where there is one.

    Raises:
        ModelError: If the directory holds no critic.
    """

    def __init__(self, directory: Path) -> None:
        import torch

        on_gpu = torch.cuda.is_available()
        self._critic = ValueHeadCritic.exported(directory, on_gpu=on_gpu)
        self.fingerprint = self._critic.fingerprint().digest
        self._critic.model.to("cuda" if on_gpu else "cpu")

    def score(self, groups: Sequence[Sequence[Pair]]) -> Iterator[list[float | None]]:
        """Scores of the answers to one prompt each, in order; None for what is longer than the critic's limit."""
        for start in range(0, len(groups), _PROMPTS_AT_ONCE):
            part = groups[start : start + _PROMPTS_AT_ONCE]
            fits = [[self._fits(pair) for pair in group] for group in part]
            pairs = [
                pair
                for group, fit in zip(part, fits, strict=True)
                for pair, is_short in zip(group, fit, strict=True)
                if is_short
            ]
            found = self._critic.score(pairs) if pairs else np.zeros(0)
            scores = iter(np.asarray(found, dtype=np.float64).tolist())
            for fit in fits:
                yield [next(scores) if is_short else None for is_short in fit]

    def _fits(self, pair: Pair) -> bool:
        try:
            self._critic.model.encoder.encode(pair)
        except DataError:
            return False
        return True
