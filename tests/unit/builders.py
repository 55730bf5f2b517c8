"""Small batches and learners, for tests in several rooms."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gad_ray.batch import (
    Example,
    Message,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    ScoreBatch,
    StopReason,
    TrainBatch,
    TrainStats,
)
from gad_ray.config.critic import CriticConfig
from gad_ray.config.models import ModelConfig, OptimizerConfig
from gad_ray.config.policy import PolicyConfig
from gad_ray.config.reward import RewardConfig
from gad_ray.learners.collective import Collective, LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.optim import StepResult
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import Pair
from gad_ray.rewards.format_terms import FormatTerms
from gad_ray.rewards.stage import rewards_of, train_batch

PROMPTS = (
    "Why is the sky blue?",
    "Write a short list of fruits, and say of every one of them where it grows.",
    "What is 17 times 23?",
    "Hello!",
)
TEACHER = (
    "Because air scatters blue light more than red.",
    "Apples, pears and plums.",
    "It is 391, because 17 * 20 = 340 and 17 * 3 = 51.",
    "Hello! How are you today? I am fine, thank you.",
)
STUDENT = (
    ("The sky is.", "Blue blue blue blue blue.", "Because of the dog, the quick brown fox and the lazy one."),
    ("a list", "fruits: oranges", "oranges, pears"),
    ("340", "17 times 23 is what?", "51"),
    ("Hello", "And what about you? And what about you?", "I am"),
)


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def pair(prompt: str, response: str) -> Pair:
    return Pair(user(prompt), response)


def sampling(**changed: Any) -> SamplingSettings:
    settings = {
        "num_responses": 3,
        "temperature": 1.0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "max_tokens": 8,
        "seed": 0,
    }
    return SamplingSettings(**{**settings, **changed})


def drawn_by(learner: PolicyLearner, rollouts: RolloutBatch) -> RolloutBatch:
    """The same responses, drawn by the policy as it is."""
    return replace(rollouts, policy_versions=np.full(len(rollouts), learner.version))


def prompt_batch(
    num_prompts: int = len(PROMPTS), *, teacher: Sequence[str] = TEACHER, step: int = 1
) -> PromptBatch:
    examples = [
        Example(id=f"e{i}", messages=user(PROMPTS[i]), teacher_response=teacher[i])
        for i in range(num_prompts)
    ]
    return PromptBatch(step=step, examples=tuple(examples))


def rollout_batch(
    chat: ChatFormat, prompts: PromptBatch, *, texts: Sequence[Sequence[str]] = STUDENT, **changed: Any
) -> RolloutBatch:
    """Responses of given texts, each ended by the end-of-turn token, at −1.5 nats a token."""
    rows = [
        (example, text) for example, group in zip(prompts.examples, texts, strict=False) for text in group
    ]
    responses = [[*chat.response_ids(text), chat.end_of_turn_id] for _, text in rows]
    fields: dict[str, Any] = {
        "step": prompts.step,
        "example_ids": tuple(example.id for example, _ in rows),
        "texts": tuple(text for _, text in rows),
        "prompt_tokens": Ragged.from_rows([chat.prompt_ids(e.messages) for e, _ in rows], np.int32),
        "response_tokens": Ragged.from_rows(responses, np.int32),
        "logprobs": Ragged.from_rows([[-1.5] * len(r) for r in responses], np.float32),
        "stop_reasons": (StopReason.STOP,) * len(rows),
        "policy_versions": np.zeros(len(rows), dtype=np.int64),
        "sampling": sampling(),
        "teacher_lengths": np.asarray(
            [len(chat.response_ids(e.teacher_response)) for e, _ in rows], dtype=np.int32
        ),
    }
    return RolloutBatch(**{**fields, **changed})


def score_batch(student: Sequence[float], teacher: Sequence[float] | None = None) -> ScoreBatch:
    return ScoreBatch(
        student=np.asarray(student, dtype=np.float32),
        teacher=np.asarray(teacher if teacher is not None else [0.0] * len(student), dtype=np.float32),
        critic_version=0,
    )


def spread_scores(rollouts: RolloutBatch) -> ScoreBatch:
    """Other scores for every response of a group."""
    return score_batch([((7 * i) % 5) - 2.0 for i in range(len(rollouts))])


# Adam's first step is the gradient's sign; a large ε makes the step follow its size, so that rounding of a
# gradient near zero stays small and a gradient of the wrong size shows.
SMOOTH = {"eps": 1e-3, "grad_clip": 1e6}


def critic_config(directory: Path, *, model: dict[str, Any] | None = None, **changed: Any) -> CriticConfig:
    fields = {
        "model": ModelConfig(**{"model": str(directory), "compute": "float32", **(model or {})}),
        "optimizer": OptimizerConfig(lr=1e-3, **SMOOTH),
        "max_tokens": 512,
        "micro_batch_tokens": 16384,
    }
    return CriticConfig(**{**fields, **changed})


def critic_learner(config: CriticConfig, *, collective: Collective | None = None) -> CriticLearner:
    return CriticLearner(
        config,
        seed=0,
        total_steps=10,
        collective=collective or LocalCollective(),
        max_nonfinite_steps=2,
    )


def policy_config(directory: Path, *, model: dict[str, Any] | None = None, **changed: Any) -> PolicyConfig:
    fields = {
        "model": ModelConfig(**{"model": str(directory), "compute": "float32", **(model or {})}),
        "optimizer": OptimizerConfig(lr=1e-3, **SMOOTH),
        "micro_batch_tokens": 16384,
    }
    return PolicyConfig(**{**fields, **changed})


class GamePolicy(PolicyLearner):
    """A policy with the reward stage before it, as in a step of the game."""

    reward = RewardConfig()
    num_places: int | None = None

    def play(
        self, rollouts: RolloutBatch, scores: ScoreBatch, prompts: PromptBatch | None = None
    ) -> TrainStats:
        """An update on responses and their scores."""
        return self.update(self.train_batch(rollouts, scores, prompts))

    def train_batch(
        self, rollouts: RolloutBatch, scores: ScoreBatch, prompts: PromptBatch | None = None
    ) -> TrainBatch:
        """What an update is made on."""
        form = None
        if self.reward.format:
            assert prompts is not None
            form = FormatTerms(self.reward)(prompts, rollouts)
        penalty = self.kl_penalty(rollouts) if self.config.kl.in_reward else None
        rewards = rewards_of(rollouts, scores, self.reward, form)
        return train_batch(
            rollouts, rewards, self.config, prompts=prompts, num_places=self.num_places, penalty=penalty
        )


def policy_learner(
    config: PolicyConfig,
    *,
    mini_batch_prompts: int = len(PROMPTS),
    warmup_lr: float | None = None,
    collective: Collective | None = None,
    reward: RewardConfig | None = None,
    max_prompts: int | None = None,
    total_steps: int = 10,
    fit_steps: int | None = None,
) -> GamePolicy:
    learner = GamePolicy(
        config,
        mini_batch_prompts=mini_batch_prompts,
        total_steps=total_steps,
        fit_steps=fit_steps,
        warmup_lr=warmup_lr,
        collective=collective or LocalCollective(),
        max_nonfinite_steps=2,
    )
    learner.reward, learner.num_places = reward or RewardConfig(), max_prompts
    return learner


def weights_of(learner: CriticLearner | PolicyLearner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in learner.model.named_parameters()}


def gradients_of(learner: CriticLearner | PolicyLearner, update: Callable[[], object]) -> dict[str, Tensor]:
    """The gradient that an update hands to the optimiser, which then stands still. For float32 models."""
    found: dict[str, Tensor] = {}

    def record(loss: float) -> StepResult:
        found.update({n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None})
        return StepResult(grad_norm=0.0, grad_norm_before_clip=0.0, lr=0.0, skipped=False)

    backend = learner.backend
    original = backend.clip_and_step
    backend.clip_and_step = record  # type: ignore[method-assign]
    try:
        update()
    finally:
        backend.clip_and_step = original  # type: ignore[method-assign]
        learner.model.zero_grad()
    return found


@contextmanager
def recorded_gradients(learner: CriticLearner | PolicyLearner) -> Generator[list[dict[str, Tensor]]]:
    """The gradient of every optimiser step that is taken, added up over the ranks. For float32 models."""
    seen: list[dict[str, Tensor]] = []
    backend = learner.backend
    original = backend.clip_and_step

    def record(loss: float) -> StepResult:
        trained = {name: p for name, p in learner.model.named_parameters() if p.requires_grad}
        own = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in trained.items()}
        learner.collective.add_up(own.values())
        seen.append(own)
        return original(loss)

    backend.clip_and_step = record  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        backend.clip_and_step = original  # type: ignore[method-assign]


def figures_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without those that depend on the clock."""
    return {name: value for name, value in metrics.items() if not name.startswith(("timing_s/", "perf/"))}


def assert_gradients_close(
    found: dict[str, Tensor], wanted: dict[str, Tensor], *, relative: float = 1e-5
) -> None:
    """Every tensor of a gradient differs by at most ``relative`` of its norm, or of 1 % of the whole gradient's.

    A gradient that nearly cancels is as exact as the parts that it is left of.
    """
    whole = float(torch.stack([tensor.norm() for tensor in wanted.values()]).norm())
    assert whole > 1e-4, "a gradient of nothing shows nothing"
    assert_close(found, wanted, relative=relative, absolute=relative * 0.01 * whole)


def assert_close(
    found: dict[str, Tensor], wanted: dict[str, Tensor], *, relative: float, absolute: float = 0.0
) -> None:
    """Every tensor differs from its wanted value by at most ``relative`` of that value's norm, or ``absolute``."""
    assert found.keys() == wanted.keys()
    assert wanted
    for name, tensor in wanted.items():
        gap, size = float((found[name] - tensor).norm()), float(tensor.norm())
        assert gap <= max(relative * size, absolute), f"{name}: {gap} of {size}"
