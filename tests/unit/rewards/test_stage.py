from typing import Any

import numpy as np
import pytest

from gad_ray.batch import Ragged, StopReason
from gad_ray.config.reward import NoRepetition, RewardConfig
from gad_ray.core.advantages import (
    AdvantageConfig,
    DrGrpoAdvantage,
    GrpoAdvantage,
    OpoAdvantage,
    RankAdvantage,
    ReinforcePpAdvantage,
    RlooAdvantage,
)
from gad_ray.models.chat import ChatFormat
from gad_ray.rewards.format_terms import FormatTerms
from gad_ray.rewards.stage import (
    advantages_of,
    response_metrics,
    reward_metrics,
    rewards_of,
)
from tests.unit.builders import policy_config, prompt_batch, rollout_batch, score_batch
from tests.unit.learners.variants import ADVANTAGES

TEXTS = [("a b a b", "a b c"), ("x", "y", "z")]
SCORES = [1.0, 3.0, -2.0, -2.0, -2.0]


def rollouts_of(chat: ChatFormat, **changed: Any):
    return rollout_batch(chat, prompt_batch(2), texts=TEXTS, **changed)


def test_without_format_rewards_the_reward_is_the_critics_score(chat: ChatFormat):
    rollouts = rollouts_of(chat)
    rewards = rewards_of(rollouts, score_batch(SCORES), RewardConfig())
    assert rewards.total.tolist() == rewards.discriminator.tolist() == SCORES
    metrics = reward_metrics(rollouts, rewards, with_format=False)
    assert metrics["critic/rewards/mean"] == metrics["reward/discriminator_mean"] == pytest.approx(-0.4)
    assert "format/reward_avg" not in metrics


def test_the_reward_is_the_weighted_sum_of_its_terms(chat: ChatFormat):
    # Bigrams of "a b a b": 2 of 3 distinct, −1/3; all others 0. Weighed 3 and 0.5: −1 and 0.5·score.
    config = RewardConfig(discriminator_weight=0.5, format=(NoRepetition(ngram=2, weight=3.0),))
    rollouts = rollouts_of(chat)
    form = FormatTerms(config)(prompt_batch(2), rollouts)
    rewards = rewards_of(rollouts, score_batch(SCORES), config, form)
    assert rewards.format.tolist() == pytest.approx([-1.0, 0.0, 0.0, 0.0, 0.0])
    assert rewards.total.tolist() == pytest.approx([-0.5, 1.5, -1.0, -1.0, -1.0])
    metrics = reward_metrics(rollouts, rewards, with_format=True)
    assert metrics["critic/rewards/mean"] == pytest.approx(
        metrics["reward/discriminator_mean"] + metrics["format/reward_avg"]
    )
    assert metrics["format/reward_avg"] == pytest.approx(-0.2)


def test_advantages_are_within_groups_of_any_size_with_the_configs_floor_and_clip(
    chat: ChatFormat, tied_model
):
    rollouts = rollouts_of(chat)
    rewards = rewards_of(rollouts, score_batch(SCORES), RewardConfig())
    # (1, 3): mean 2, deviation 1.4142136; clamped to 0.5. Three equal rewards: 0.
    config = policy_config(tied_model, advantage=GrpoAdvantage(clip=0.5))
    assert advantages_of(rollouts, rewards, config).tolist() == pytest.approx([-0.5, 0.5, 0, 0, 0])
    config = policy_config(tied_model, advantage=GrpoAdvantage(std_floor=4.0, clip=None))
    assert advantages_of(rollouts, rewards, config).tolist() == pytest.approx([-0.25, 0.25, 0, 0, 0])


@pytest.mark.parametrize(
    ("advantage", "wanted"),
    [
        # Groups (1, 3) and (0, 0, 6), of lengths (1, 3) and (1, 1, 2), as in the tests of the formulas.
        (GrpoAdvantage(std_floor=2.0, clip=1.1), [-0.5, 0.5, -0.5773503, -0.5773503, 1.1]),
        (DrGrpoAdvantage(), [-1.0, 1.0, -2.0, -2.0, 4.0]),
        (RlooAdvantage(), [-2.0, 2.0, -3.0, -3.0, 6.0]),
        (RankAdvantage(), [-1.0, 1.0, -0.5, -0.5, 1.0]),
        (OpoAdvantage(), [-1.5, 0.5, -3.0, -3.0, 3.0]),
        (ReinforcePpAdvantage(std_floor=4.0), [-0.25, 0.25, -0.5, -0.5, 1.0]),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_an_advantage_by_configuration_is_that_of_its_formula(
    chat: ChatFormat, tied_model, advantage: AdvantageConfig, wanted: list[float]
):
    lengths = [1, 3, 1, 1, 2]
    rollouts = rollouts_of(
        chat,
        response_tokens=Ragged.from_rows([[9] * n for n in lengths], np.int32),
        logprobs=Ragged.from_rows([[-1.0] * n for n in lengths], np.float32),
    )
    rewards = rewards_of(rollouts, score_batch([1.0, 3.0, 0.0, 0.0, 6.0]), RewardConfig())
    config = policy_config(tied_model, advantage=advantage)
    assert advantages_of(rollouts, rewards, config).tolist() == pytest.approx(wanted, abs=1e-6)
    # A penalty of 1 leaves the first group rewards of 0 and 3.
    penalty = np.asarray([1.0, 0, 0, 0, 0], dtype=np.float32)
    if isinstance(advantage, DrGrpoAdvantage):
        lower = advantages_of(rollouts, rewards, config, penalty=penalty)
        assert lower.tolist() == [-1.5, 1.5, -2.0, -2.0, 4.0]


@pytest.mark.parametrize("advantage", ADVANTAGES, ids=lambda one: one.name)
@pytest.mark.parametrize("reward", [0.1, -7.3, 3333.3333, -1e4])
def test_a_batch_in_which_nothing_differs_has_no_advantage_at_all(
    chat: ChatFormat, tied_model, advantage: AdvantageConfig, reward: float
):
    """Three rewards of 0.1 have a mean other than 0.1 in float32: whitening would make ±1 of that."""
    rollouts = rollouts_of(chat)
    rewards = rewards_of(rollouts, score_batch([reward] * 2 + [2 * reward] * 3), RewardConfig())
    config = policy_config(tied_model, advantage=advantage)
    assert advantages_of(rollouts, rewards, config).tolist() == [0.0] * 5


def test_groups_without_spread_are_counted(chat: ChatFormat):
    rollouts = rollouts_of(chat)
    rewards = rewards_of(rollouts, score_batch(SCORES), RewardConfig())
    assert reward_metrics(rollouts, rewards, with_format=False)["actor/zero_spread_groups"] == 0.5
    assert rollouts.group_index().tolist() == [0, 0, 1, 1, 1]


def test_lengths_are_in_tokens_and_the_teachers_is_counted_once_a_prompt(chat: ChatFormat):
    lengths = [2, 4, 1, 1, 7]
    rollouts = rollouts_of(
        chat,
        response_tokens=Ragged.from_rows([[9] * n for n in lengths], np.int32),
        logprobs=Ragged.from_rows([[-1.0] * n for n in lengths], np.float32),
        teacher_lengths=np.asarray([10, 10, 4, 4, 4], dtype=np.int32),
        stop_reasons=(StopReason.LENGTH, *[StopReason.STOP] * 4),
        num_failed=1,
        num_retried=3,
    )
    assert response_metrics(rollouts) == {
        # 2 that were cut, and 3, 0, 0, 6 before an end-of-turn token
        "response_length/mean": 2.2,
        "response_length/min": 0.0,
        "response_length/max": 6.0,
        "response_length/clip_ratio": pytest.approx(0.2),
        "response_length/teacher_mean": 7.0,
        "prompt_length/mean": pytest.approx(rollouts.prompt_tokens.lengths.mean()),
        "prompt_length/max": float(max(len(row) for row in rollouts.prompt_tokens)),
        "rollout/responses": 5.0,
        "rollout/failed": 1.0,
        "rollout/retried": 3.0,
    }
