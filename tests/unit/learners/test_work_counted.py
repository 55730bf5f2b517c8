"""No work twice: every forward pass of a step, and the tokens it computes, for each configuration."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gad_ray.config.models import LoraConfig
from gad_ray.config.policy import KlConfig
from gad_ray.core.discriminator import BradleyTerryLoss
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import Pair
from tests.unit.builders import drawn_by
from tests.unit.learners.variants import (
    HALF,
    NORMALISED,
    REPLAY,
    WHOLE,
    batch_of,
    game_policy,
    spread_critic,
)

Pass = tuple[str, int]
"""``train`` or ``only`` (no gradient), and tokens that the backbone computes, padding included."""


@contextmanager
def counted(backbone: nn.Module) -> Generator[list[Pass]]:
    """Every forward pass of a backbone in the block."""
    seen: list[Pass] = []

    def see(_: nn.Module, __: Any, named: dict[str, Any]) -> None:
        seen.append(("train" if torch.is_grad_enabled() else "only", named["input_ids"].numel()))

    hook = backbone.register_forward_pre_hook(see, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def policy_tokens(chat: ChatFormat) -> int:
    """Each prompt once, and every response."""
    batch = batch_of(chat)
    prompts = sum(len(chat.prompt_ids(example.messages)) for example in batch.prompts.examples)
    return prompts + len(batch.rollouts.response_tokens.values)


def critic_tokens(learner: CriticLearner) -> int:
    """Each prompt once, the teacher's text once, and every response that is no repetition."""
    batch = batch_of(learner.model.encoder.chat)
    texts = {example.id: {example.teacher_response} for example in batch.prompts.examples}
    for owner, text in zip(batch.rollouts.example_ids, batch.rollouts.texts, strict=True):
        texts[owner].add(text)
    tokens = 0
    for example in batch.prompts.examples:
        rows = [
            learner.model.encoder.encode(Pair(messages=example.messages, response=text))
            for text in texts[example.id]
        ]
        # An empty response is scored at its prompt's last token, and so has another prompt than the others.
        tokens += sum({row.start for row in rows}) + sum(len(row) - row.start for row in rows)
    return tokens


KL = KlConfig(coefficient=0.1)
IN_REWARD = KlConfig(coefficient=0.1, place="reward", estimator="k1")
LORA = {"lora": LoraConfig(rank=2, alpha=4.0)}

POLICIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    # π_old of a policy that trains on its own fresh responses is its training pass.
    "no penalty": ({}, ["train"]),
    "penalty in the loss": ({"kl": KL}, ["train", "only"]),
    "penalty in the reward": ({"kl": IN_REWARD}, ["only", "only", "train"]),
    "adapters": ({"model": LORA}, ["train"]),
    "adapters, penalty": ({"model": LORA, "kl": KL}, ["train", "only"]),
    "entropy": ({"entropy_coefficient": 0.1}, ["train"]),
    "two epochs": ({"epochs_per_step": 2}, ["only", "train", "train"]),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policys_step_computes_each_prompt_and_response_once_a_pass(
    tied_model: Path, chat: ChatFormat, name: str
) -> None:
    variant, wanted = POLICIES[name]
    learner = game_policy(tied_model, micro_batch_tokens=WHOLE, **variant)
    batch = batch_of(chat)
    rollouts = drawn_by(learner, batch.rollouts)
    with counted(learner.model.decoder) as passes:
        learner.play(rollouts, batch.scores, batch.prompts)
    assert passes == [(kind, policy_tokens(chat)) for kind in wanted]


@pytest.mark.parametrize("model", [{}, LORA], ids=["all weights", "adapters"])
def test_a_reference_keeps_what_is_trained_and_no_second_model(
    tied_model: Path, model: dict[str, Any]
) -> None:
    learner = game_policy(tied_model, model=model, kl=KL)
    assert learner.state()[0].keys() >= {f"reference/{name}" for name in learner.model.trainable()}
    held = sum(t.numel() for name, t in learner.state()[0].items() if name.startswith("reference/"))
    assert held == sum(p.numel() for p in learner.model.trainable().values())
    without = game_policy(tied_model, model=model)
    assert not any(name.startswith("reference/") for name in without.state()[0])


CRITICS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one update": ({"loss": BradleyTerryLoss(temperature=HALF)}, ["train"]),
    "two updates": ({"loss": BradleyTerryLoss(temperature=HALF), "updates_per_step": 2}, ["train", "train"]),
    # One pass holds the whole batch, which its loss asks for.
    "normalised scores": ({"loss": NORMALISED}, ["train"]),
    "replay, nothing kept yet": ({"replay": REPLAY}, ["train"]),
    "adapters": ({"model": LORA}, ["train"]),
}


@pytest.mark.parametrize("name", CRITICS)
def test_a_critics_step_scores_by_the_pass_that_trains_it(tied_model: Path, name: str) -> None:
    variant, wanted = CRITICS[name]
    learner = spread_critic(tied_model, micro_batch_tokens=WHOLE, **variant)
    batch = batch_of(learner.model.encoder.chat)
    with counted(learner.model.backbone) as passes:
        learner.score_and_update(batch.prompts, batch.rollouts)
    assert passes == [(kind, critic_tokens(learner)) for kind in wanted]


def test_a_loss_of_the_whole_batch_that_does_not_fit_one_pass_takes_every_pass_twice(
    tied_model: Path,
) -> None:
    learner = spread_critic(tied_model, micro_batch_tokens=1, loss=NORMALISED)
    batch = batch_of(learner.model.encoder.chat)
    with counted(learner.model.backbone) as passes:
        learner.score_and_update(batch.prompts, batch.rollouts)
    assert [kind for kind, _ in passes] == ["only"] * 4 + ["train"] * 4
    assert sum(tokens for _, tokens in passes) == 2 * critic_tokens(learner)


def test_scores_without_learning_take_one_pass(tied_model: Path) -> None:
    learner = spread_critic(tied_model, micro_batch_tokens=WHOLE)
    batch = batch_of(learner.model.encoder.chat)
    with counted(learner.model.backbone) as passes:
        learner.score_batch(batch.prompts, batch.rollouts)
    assert passes == [("only", critic_tokens(learner))]
