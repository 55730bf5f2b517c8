"""Reward functions of the user's: asked once a response, several at a time, within a deadline."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gad_ray.batch import FormatBatch, PromptBatch, RolloutBatch
from gad_ray.config import load_config
from gad_ray.config.reward import CustomTerm
from gad_ray.rewards.functions import UserFunction
from gad_ray.rewards.stage import RewardStage
from tests.unit.builders import score_batch
from tests.unit.learners.variants import NINE_SCORES

TEXTS = [("p", f"r{i}") for i in range(6)]


@pytest.fixture
def module() -> Iterator[Any]:
    module = ModuleType("functions_of_a_user")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def function_of(name: str, **settings: Any) -> UserFunction:
    return UserFunction(CustomTerm(function=f"functions_of_a_user:{name}", **settings))


def test_async_functions_are_asked_at_the_same_time_up_to_the_bound(module: Any) -> None:
    running, most = 0, 0

    async def judge_at_once(prompt: str, response: str) -> float:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running -= 1
        return int(response[1:]) / 10

    module.judge_at_once = judge_at_once
    assert function_of("judge_at_once", concurrency=4)(TEXTS) == [i / 10 for i in range(6)]
    assert most == 4


def test_other_functions_are_asked_one_after_the_other(module: Any) -> None:
    running, most, order = 0, 0, []

    def one_by_one(prompt: str, response: str) -> float:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(response)
        running -= 1
        return 0.5

    module.one_by_one = one_by_one
    assert function_of("one_by_one")(TEXTS) == [0.5] * 6
    assert (most, order) == (1, [response for _, response in TEXTS])


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_function_that_does_not_come_back_is_left_and_the_others_are_asked(module: Any, kind: str) -> None:
    never = threading.Event()

    async def hang_async(prompt: str, response: str) -> float:
        if response == "r1":
            await asyncio.Event().wait()
        return 1.0

    def hang_plain(prompt: str, response: str) -> float:
        if response == "r1":
            never.wait()
        return 1.0

    setattr(module, f"hang_{kind}", {"async": hang_async, "plain": hang_plain}[kind])
    answers = function_of(f"hang_{kind}", deadline_s=0.3).answers(TEXTS)
    assert answers[1] == "gave nothing within 0.3 s"
    assert [answer for i, answer in enumerate(answers) if i != 1] == [1.0] * 5
    never.set()


def test_a_failure_is_asked_again_as_often_as_is_allowed(module: Any) -> None:
    asked: Counter[str] = Counter()

    async def flaky(prompt: str, response: str) -> float:
        asked[response] += 1
        if asked[response] < 3:
            raise ConnectionError("not yet")
        return 0.25

    module.flaky = flaky
    assert function_of("flaky", retries=2)(TEXTS[:2]) == [0.25, 0.25]
    assert set(asked.values()) == {3}
    asked.clear()
    assert np.isnan(function_of("flaky", retries=1)(TEXTS[:1])).all()
    assert asked["r0"] == 2


def test_a_random_reward_is_one_and_the_same_in_log_record_and_training(
    module: Any, prompts: PromptBatch, rollouts: RolloutBatch
) -> None:
    asked: Counter[str] = Counter()
    draw = random.Random(3)

    def chance(prompt: str, response: str) -> float:
        asked[response] += 1
        return draw.random()

    module.chance = chance
    term = "[{name: custom, function: 'functions_of_a_user:chance'}]"
    config = load_config("quickstart", [f"reward.format={term}", "policy.advantage={name: dr_grpo}"])
    stage = RewardStage(config)
    scores = score_batch(NINE_SCORES)
    # As a refill does: by parts, whose terms are then joined.
    parts = [rollouts.take(range(3)), rollouts.take(range(3, 9))]
    form = FormatBatch.concat([stage.format(prompts, part) for part in parts])
    rewards = stage.rewards(rollouts, scores, form)
    batch = stage.train_batch(prompts, rollouts, rewards)
    report = stage.report(rollouts, scores, rewards)
    assert asked == Counter(rollouts.texts), "each response once"
    assert report.metrics["critic/rewards/mean"] == pytest.approx(float(rewards.total.mean()))
    centred = np.concatenate([group - group.mean() for group in np.split(rewards.total.astype(float), 3)])
    np.testing.assert_allclose(batch.advantages, centred, atol=1e-6)
