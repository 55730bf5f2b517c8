"""Format rewards and functions of the user's in the policy's update."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from gad_ray.batch import PromptBatch, RewardBatch, RolloutBatch
from gad_ray.config.reward import (
    CustomTerm,
    LeakedControl,
    LengthWindow,
    NoRepetition,
    ParsedJson,
    RequiredPattern,
    RewardConfig,
    SameLanguage,
)
from gad_ray.core.rewards import load_reward_function
from gad_ray.errors import ConfigError, TrainingError
from gad_ray.observability.metrics import check_metrics
from gad_ray.rewards.format_terms import FormatTerms, check_failures, try_reward_functions
from gad_ray.rewards.stage import reward_metrics, rewards_of
from tests.unit.builders import (
    PROMPTS,
    TEACHER,
    assert_gradients_close,
    gradients_of,
    score_batch,
    weights_of,
)
from tests.unit.learners.variants import NINE_SCORES, game_policy


def rewards(rollouts: RolloutBatch, prompts: PromptBatch, config: RewardConfig) -> RewardBatch:
    form = FormatTerms(config)(prompts, rollouts)
    check_failures(form.total, config)
    return rewards_of(rollouts, score_batch(NINE_SCORES), config, form)


@pytest.fixture
def user_module() -> Iterator[ModuleType]:
    module = ModuleType("rewards_of_a_user")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.fixture
def grumpy(user_module: ModuleType) -> CustomTerm:
    """A function that fails in three ways on three responses."""

    def grumpy(prompt: str, response: str) -> object:
        if response == "a list":
            raise RuntimeError("no lists")
        return {"340": float("nan"), "51": "a lot"}.get(response, 0.5 if "sky" in prompt else 0.0)

    name = f"grumpy_{id(grumpy)}"
    setattr(user_module, name, grumpy)
    return CustomTerm(function=f"{user_module.__name__}:{name}")


def test_a_response_on_which_the_users_function_fails_is_never_trained_on(
    tied_model: Path, rollouts: RolloutBatch, prompts: PromptBatch, grumpy: CustomTerm
):
    reward = RewardConfig(format=(grumpy,), max_failed_fraction=0.5)
    learner, plain = game_policy(tied_model, reward=reward), game_policy(tied_model)
    found = gradients_of(learner, lambda: learner.play(rollouts, score_batch(NINE_SCORES), prompts))
    rest = [0, 1, 2, 4, 5, 7]
    # The first prompt's responses are all given 0.5 more, which no advantage sees.
    left = score_batch([NINE_SCORES[i] for i in rest])
    wanted = gradients_of(plain, lambda: plain.play(rollouts.take(rest), left))
    assert_gradients_close(found, wanted)


def test_failures_of_the_users_function_are_counted_named_and_left_out_of_the_means(
    rollouts: RolloutBatch, prompts: PromptBatch, grumpy: CustomTerm, caplog: pytest.LogCaptureFixture
):
    config = RewardConfig(
        discriminator_weight=2.0,
        format=(grumpy, NoRepetition(ngram=1, weight=3.0)),
        max_failed_fraction=0.5,
    )
    found = rewards(rollouts, prompts, config)
    metrics = reward_metrics(rollouts, found, with_format=True)
    check_metrics("adversarial", metrics)
    assert metrics["reward/failed_samples"] == 3.0
    assert found.usable.tolist() == [True, True, True, False, True, True, False, True, False]
    assert metrics["format/custom"] == pytest.approx(0.25)
    assert metrics["critic/rewards/mean"] == pytest.approx(
        metrics["reward/discriminator_mean"] + metrics["format/reward_avg"]
    )
    assert metrics["reward/discriminator_mean"] == pytest.approx(2 * np.mean([1, 3, -1, 0, -2, 1]))
    for told in ("RuntimeError: no lists", "gave nan", "gave a str"):
        assert told in caplog.text


def test_a_batch_on_which_the_users_function_always_fails_moves_nothing(
    tied_model: Path, rollouts: RolloutBatch, prompts: PromptBatch, user_module: ModuleType
):
    user_module.broken = lambda prompt, response: None  # type: ignore[attr-defined]
    reward = RewardConfig(format=(CustomTerm(function="rewards_of_a_user:broken"),), max_failed_fraction=1.0)
    learner = game_policy(tied_model, reward=reward)
    before = weights_of(learner)
    assert learner.play(rollouts, score_batch(NINE_SCORES), prompts).num_steps == 0
    assert all(torch.equal(before[name], after) for name, after in weights_of(learner).items())
    found = rewards(rollouts, prompts, reward)
    metrics = reward_metrics(rollouts, found, with_format=True)
    assert metrics == {"actor/zero_spread_groups": 1.0, "reward/failed_samples": 9.0}


@pytest.mark.parametrize(("allowed", "stops"), [(0.33, True), (0.34, False)])
def test_a_run_stops_where_too_large_a_share_of_responses_has_no_reward(
    rollouts: RolloutBatch, prompts: PromptBatch, grumpy: CustomTerm, allowed: float, stops: bool
):
    config = RewardConfig(format=(grumpy,), max_failed_fraction=allowed)
    with pytest.raises(TrainingError) if stops else nullcontext() as caught:
        rewards(rollouts, prompts, config)
    if stops:
        told = "3 of 9 responses have no reward, more than reward.max_failed_fraction = 0.33 allows"
        assert told in str(caught.value)
        assert grumpy.function in str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([RuntimeError("no")], "raised RuntimeError: no"),
        ([float("nan")], "gave nan"),
        ([float("inf")], "gave inf"),
        ([3.0], "gave 3.0, which is not between -1.0 and 1.0"),
        ([[0.5, 0.5]], "gave a list, not a number"),
        ([np.ones(2)], "gave a ndarray, not a number"),
    ],
)
def test_a_function_is_tried_on_a_teachers_response_before_the_run(
    user_module: ModuleType, prompts: PromptBatch, values: list[object], told: str
):
    given = [*values, values[-1]]

    def tried(prompt: str, response: str) -> object:
        assert (prompt, response) == (PROMPTS[0], TEACHER[0])
        value = given.pop(0)
        if isinstance(value, Exception):
            raise value
        return value

    user_module.tried = tried  # type: ignore[attr-defined]
    load_reward_function.cache_clear()
    config = RewardConfig(format=(CustomTerm(function="rewards_of_a_user:tried"),))
    with pytest.raises(ConfigError) as caught:
        try_reward_functions(config, prompts.examples[0])
    assert f"the reward function 'rewards_of_a_user:tried' {told}" in str(caught.value)
    assert "prompt 'e0'" in str(caught.value)


def test_a_function_that_gives_a_number_passes_its_trial(user_module: ModuleType, prompts: PromptBatch):
    user_module.fine = lambda prompt, response: np.float32(0.5)  # type: ignore[attr-defined]
    config = RewardConfig(format=(CustomTerm(function="rewards_of_a_user:fine"), NoRepetition()))
    try_reward_functions(config, prompts.examples[0])


def test_a_function_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no_such_module"):
        FormatTerms(RewardConfig(format=(CustomTerm(function="no_such_module:f"),)))


def test_a_length_window_counts_the_tokens_of_the_text_as_the_teachers_are_counted(
    rollouts: RolloutBatch, prompts: PromptBatch
):
    """A response of exactly the permitted text is free, whatever ends it; one token more is not."""
    longest = int(rollouts.text_lengths.max())
    assert longest + 1 == rollouts.response_tokens.lengths.max(), "it ended its turn"
    for limit, penalty in ((longest, 0.0), (longest - 1, -1.0)):
        config = RewardConfig(format=(LengthWindow(max_tokens=limit),))
        found = rewards(rollouts, prompts, config)
        assert found.terms["length_window"].min() == penalty


def test_every_term_is_logged_under_its_own_name_and_adds_up(rollouts: RolloutBatch, prompts: PromptBatch):
    config = RewardConfig(
        format=(
            RequiredPattern(regex=r"\d", weight=0.5),
            ParsedJson(weight=2.0),
            LeakedControl(),
            LengthWindow(max_tokens=10, soft_tokens=5),
            SameLanguage(),
            NoRepetition(ngram=1),
        )
    )
    found = rewards(rollouts, prompts, config)
    metrics = reward_metrics(rollouts, found, with_format=True)
    check_metrics("adversarial", metrics)
    assert metrics["format/pattern"] == pytest.approx(3 / 9)
    assert metrics["format/json"] == pytest.approx(2 / 9)
    assert metrics["format/leaked_control"] == 0.0
    assert metrics["format/language"] == 1.0
    assert -1.0 < metrics["format/length_window"] < 0.0
    weights = {"pattern": 0.5, "json": 2.0}
    total = sum(weights.get(name, 1.0) * metrics[f"format/{name}"] for name in found.terms)
    assert len(found.terms) == 6
    assert metrics["format/reward_avg"] == pytest.approx(total, rel=1e-5)
    assert metrics["critic/rewards/mean"] == pytest.approx(np.mean(NINE_SCORES) + total, rel=1e-5)
