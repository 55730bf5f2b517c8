"""When π_old takes a pass of its own, and that such a pass finds again what the first one found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gad_ray.config.models import OptimizerConfig
from gad_ray.config.policy import KlConfig, TruncatedImportance
from gad_ray.models.chat import ChatFormat
from gad_ray.models.policy import PolicyModel, rows_of
from tests.unit.builders import GamePolicy, drawn_by
from tests.unit.learners.variants import WHOLE, batch_of, game_policy

Pass = tuple[str, int]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Pass]:
    """Every forward pass of a policy: what it is for, and over how many responses."""
    seen: list[Pass] = []
    original = PolicyModel.token_logprobs

    def count(self: PolicyModel, rows: Any, *, reference: Any = None, **named: Any) -> Any:
        kind = "reference" if reference is not None else "train" if torch.is_grad_enabled() else "old"
        seen.append((kind, len(rows)))
        return original(self, rows, reference=reference, **named)

    monkeypatch.setattr(PolicyModel, "token_logprobs", count)
    return seen


def update(learner: GamePolicy, chat: ChatFormat, times: int = 1) -> dict[str, float]:
    batch = batch_of(chat)
    for _ in range(times):
        metrics = learner.play(drawn_by(learner, batch.rollouts), batch.scores, batch.prompts).metrics
    return dict(metrics)


@pytest.mark.parametrize(
    ("mini_batch_prompts", "epochs", "wanted"),
    [
        # The batch has 12 responses; the first three prompts have 9 of them.
        (4, 1, [("train", 12)]),
        (4, 2, [("old", 12), ("train", 12), ("train", 12)]),
        (3, 1, [("old", 3), ("train", 9), ("train", 3)]),
        (3, 2, [("old", 9), ("old", 3), *[("train", 9), ("train", 3)] * 2]),
    ],
)
def test_old_log_probabilities_take_a_pass_where_the_policy_will_have_moved_and_nowhere_else(
    tied_model: Path,
    chat: ChatFormat,
    passes: list[Pass],
    mini_batch_prompts: int,
    epochs: int,
    wanted: list[Pass],
):
    learner = game_policy(
        tied_model,
        mini_batch_prompts=mini_batch_prompts,
        epochs_per_step=epochs,
        micro_batch_tokens=WHOLE,
    )
    update(learner, chat)
    assert passes == wanted


def test_a_penalty_takes_one_reference_pass_for_each_of_training_and_none_without(
    tied_model: Path, chat: ChatFormat, passes: list[Pass]
):
    update(game_policy(tied_model, kl=KlConfig(coefficient=0.1), micro_batch_tokens=WHOLE), chat)
    assert passes == [("train", 12), ("reference", 12)]
    passes.clear()
    penalty = KlConfig(coefficient=0.1, place="reward", estimator="k1")
    update(game_policy(tied_model, kl=penalty, micro_batch_tokens=WHOLE), chat)
    assert passes == [("old", 12), ("reference", 12), ("train", 12)]


def test_samples_of_an_older_policy_are_trained_on_against_the_policy_as_it_is(
    tied_model: Path, chat: ChatFormat, passes: list[Pass]
):
    """π_old is of the weights before the update, not of those that sampled: the ratio to those is the weight's."""
    learner = game_policy(tied_model, importance=TruncatedImportance(cap=1e9), micro_batch_tokens=WHOLE)
    update(learner, chat)
    batch = batch_of(chat)
    assert learner.version > batch.rollouts.oldest_version
    with torch.no_grad():
        out = learner.model.token_logprobs(rows_of(batch.rollouts))
    weights = (out.logprobs + 5.5).exp()[out.mask]
    passes.clear()
    metrics = learner.play(batch.rollouts, batch.scores, batch.prompts).metrics
    assert passes == [("train", 12)]
    assert metrics["actor/ratio_gap_max"] == 0.0
    assert metrics["actor/importance_weight_mean"] == pytest.approx(float(weights.mean()), rel=1e-5)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("budget", [1, 150, WHOLE])
def test_a_pass_of_its_own_finds_the_log_probabilities_of_the_training_pass_to_the_bit(
    tied_model: Path, chat: ChatFormat, compute: str, budget: int
):
    """With a rate at which no weight moves, every later ratio, which was measured, is 1."""
    learner = game_policy(
        tied_model,
        model={"compute": compute},
        mini_batch_prompts=3,
        epochs_per_step=2,
        micro_batch_tokens=budget,
        optimizer=OptimizerConfig(lr=1e-30),
    )
    assert update(learner, chat, times=2)["actor/ratio_gap_max"] == 0.0
