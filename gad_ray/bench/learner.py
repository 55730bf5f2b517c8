"""How much of what this CPU multiplies the two learners make use of: only tokens that must be computed count."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from gad_ray import machine
from gad_ray.activity import activity
from gad_ray.auto import shape_of
from gad_ray.auto.rates import measure
from gad_ray.batch import (
    Example,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    ScoreBatch,
    StopReason,
    TrainBatch,
)
from gad_ray.bench.figures import spread
from gad_ray.bench.shape import Shape
from gad_ray.config import RunConfig
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.chat import ChatFormat, configured_chat_format
from gad_ray.models.pairs import Pair
from gad_ray.models.run_data import load_run_data
from gad_ray.models.source import describe_model, resolve_model
from gad_ray.planning.cost_model import ModelSize
from gad_ray.planning.from_config import size_of
from gad_ray.rewards.stage import rewards_of, train_batch

_PASSES = 3
"""A forward pass, and twice as much for the gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerBench:
    """The measurement.

    Attributes:
        config: A run, with every precision settled.
        shape: Sizes of a step.
        rounds: Updates that count, after one that does not.
    """

    config: RunConfig
    shape: Shape
    rounds: int

    def run(self) -> dict[str, Any]:
        """Measure the product, the policy and the critic by turns.

        Raises:
            GadError: If a model cannot be loaded or the data cannot be read.
        """
        config, threads = self.config, machine.share_of_cores(1)
        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as scratch:
            data = load_run_data(config, quarantine_path=Path(scratch) / "quarantine.jsonl", has_critic=True)
        chat = configured_chat_format(resolve_model(config.policy.model.model), config.policy.model)
        prompts = PromptBatch(step=1, examples=data.train[: self.shape.prompts])
        rollouts = responses_of(
            prompts, data.train, chat, num_responses=self.shape.responses, tokens=self.shape.tokens
        )
        with activity("loading the models"):
            policy, critic = self._policy(), self._critic()
        batch = self._train_batch(prompts, rollouts)
        parts: dict[str, tuple[Callable[[], object], float, str]] = {
            "policy": (
                lambda: policy.update(batch),
                _flop(
                    _lengths_of_policy(rollouts),
                    size_of(describe_model(config.policy.model.model), role="policy"),
                ),
                config.policy.model.dtype,
            ),
            "critic": (
                lambda: critic.score_and_update(prompts, rollouts),
                _flop(
                    _lengths_of_critic(prompts, rollouts, critic),
                    size_of(describe_model(config.critic.model.model), role="critic"),
                ),
                config.critic.model.dtype,
            ),
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in parts}
        for number in range(self.rounds + 1):
            with activity(f"round {number} of {self.rounds}"):
                for name, (update, flop, dtype) in parts.items():
                    model = getattr(config, name).model.model
                    peak = getattr(measure(shape_of(model), threads=threads), dtype) * 1e9
                    began = time.perf_counter()
                    update()
                    seconds = time.perf_counter() - began
                    if number > 0:
                        found[name].append({"seconds": seconds, "flop_per_s": flop / seconds, "peak": peak})
        return {
            "machine": f"{machine.cpu().model}, {threads} threads",
            "shape": str(self.shape),
            **{
                name: {
                    "precision": parts[name][2],
                    "seconds": median(one["seconds"] for one in rounds),
                    "gflop_per_s": median(one["flop_per_s"] for one in rounds) / 1e9,
                    "product_gflop_per_s": median(one["peak"] for one in rounds) / 1e9,
                    "share": spread([one["flop_per_s"] / one["peak"] for one in rounds]),
                }
                for name, rounds in found.items()
            },
        }

    def _policy(self) -> PolicyLearner:
        learner = PolicyLearner(
            self.config.policy,
            mini_batch_prompts=self.config.mini_batch_prompts,
            total_steps=self.rounds + 1,
            warmup_lr=None,
            collective=LocalCollective(),
            max_nonfinite_steps=1,
        )
        learner.begin_adversarial()
        return learner

    def _critic(self) -> CriticLearner:
        return CriticLearner(
            self.config.critic,
            seed=self.config.seed,
            total_steps=self.rounds + 1,
            collective=LocalCollective(),
            max_nonfinite_steps=1,
        )

    def _train_batch(self, prompts: PromptBatch, rollouts: RolloutBatch) -> TrainBatch:
        # Scores that differ within a group, so that every response has an advantage.
        student = np.arange(len(rollouts), dtype=np.float32)
        scores = ScoreBatch(student=student, teacher=np.zeros_like(student), critic_version=0)
        rewards = rewards_of(rollouts, scores, self.config.reward)
        return train_batch(rollouts, rewards, self.config.policy, prompts=prompts)


def responses_of(
    prompts: PromptBatch, texts: Sequence[Example], chat: ChatFormat, *, num_responses: int, tokens: int
) -> RolloutBatch:
    """Responses of one length, cut from the teacher's texts; each has its own beginning.

    Args:
        prompts: What they answer.
        texts: Whose teacher's texts they are made of.
        chat: The policy's.
        num_responses: To each prompt.
        tokens: Of each.
    """
    stream = cycle([token for example in texts for token in chat.response_ids(example.teacher_response)])
    owners = [example for example in prompts.examples for _ in range(num_responses)]
    rows = [list(islice(stream, tokens)) for _ in owners]
    return RolloutBatch(
        step=prompts.step,
        example_ids=tuple(owner.id for owner in owners),
        texts=tuple(chat.decode(row) for row in rows),
        prompt_tokens=Ragged.from_rows([chat.prompt_ids(owner.messages) for owner in owners], np.int32),
        response_tokens=Ragged.from_rows(rows, np.int32),
        logprobs=Ragged.from_rows([[-1.0] * tokens for _ in rows], np.float32),
        stop_reasons=(StopReason.STOP,) * len(rows),
        policy_versions=np.zeros(len(rows), dtype=np.int64),
        sampling=SamplingSettings(
            temperature=1.0,
            top_p=1.0,
            repetition_penalty=1.0,
            max_tokens=tokens,
            num_responses=num_responses,
            seed=0,
        ),
        teacher_lengths=np.asarray(
            [len(chat.response_ids(owner.teacher_response)) for owner in owners], dtype=np.int32
        ),
    )


_Lengths = list[tuple[int, list[int]]]
"""Tokens of each prompt, and of the answers to it."""


def _lengths_of_policy(rollouts: RolloutBatch) -> _Lengths:
    prompts, responses = rollouts.prompt_tokens.lengths, rollouts.response_tokens.lengths
    return [
        (int(prompts[start]), [int(one) for one in responses[start:stop]])
        for start, stop in rollouts.groups()
    ]


def _lengths_of_critic(prompts: PromptBatch, rollouts: RolloutBatch, critic: CriticLearner) -> _Lengths:
    lengths: _Lengths = []
    for example, (start, stop) in zip(prompts.examples, rollouts.groups(), strict=True):
        texts = dict.fromkeys([example.teacher_response, *rollouts.texts[start:stop]])
        rows = [critic.model.encoder.encode(Pair(messages=example.messages, response=text)) for text in texts]
        lengths.append((rows[0].start, [len(row) - row.start for row in rows]))
    return lengths


def _flop(lengths: _Lengths, size: ModelSize) -> float:
    groups = (size.text_flop(1, prompt, [(1, answer) for answer in answers]) for prompt, answers in lengths)
    return _PASSES * sum(groups)


def table(figures: dict[str, Any]) -> list[list[str]]:
    """Rows of text, the head first."""
    rows = [["learner", "precision", "s an update", "GFLOP/s", "product, GFLOP/s", "share"]]
    for name in ("policy", "critic"):
        one, share = figures[name], figures[name]["share"]
        rows.append(
            [
                name,
                one["precision"],
                f"{one['seconds']:.2f}",
                f"{one['gflop_per_s']:.0f}",
                f"{one['product_gflop_per_s']:.0f}",
                f"{share['median']:.2f} ({share['low']:.2f} to {share['high']:.2f})",
            ]
        )
    return rows
