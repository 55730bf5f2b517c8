"""Drawing, asking ahead and refilling, with groups of actors that answer at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from gad_ray.actors.groups import ActorGroups
from gad_ray.actors.rollout_group import PendingRollouts
from gad_ray.actors.rollouts import Rollouts
from gad_ray.batch import (
    Example,
    Message,
    PromptBatch,
    PromptFigures,
    RolloutReceipt,
    SamplingSettings,
)
from gad_ray.config import RunConfig, load_config
from gad_ray.controller import rollout_queue
from gad_ray.controller.rollout_queue import RolloutQueue, StepRollouts
from gad_ray.controller.stages import Stages
from gad_ray.data.dataset import LoadedData
from gad_ray.errors import TrainingError

CONFIG = """
name: asking
prompts_per_step: 4
data: {train: [rows.jsonl]}
policy: {model: {model: some/model}, advantage: {zero_spread: drop, refill: {max_rounds: 2, oversample: 1.5}}}
critic: {model: {model: some/model}}
rollout: {responses_per_prompt: 2}
stages: {warmup: {steps: 1}, adversarial: {steps: 5}}
"""
HasSpread = Callable[[str], bool]


class FakeGroups:
    """Groups whose references are the values themselves: a part of the responses is the ids of its prompts."""

    def __init__(self, has_spread: HasSpread) -> None:
        self._has_spread = has_spread
        self.asked: list[tuple[int, tuple[str, ...]]] = []
        self.looked_at: list[tuple[str, ...]] = []
        self.judged: list[tuple[str, ...]] = []
        self.rollout = self.critic = self.rewards = self

    def generate(self, prompts: PromptBatch, sampling: SamplingSettings) -> PendingRollouts:
        assert sampling.num_responses == 2
        self.asked.append((prompts.step, ids_in(prompts)))
        return PendingRollouts(
            cast(Any, Rollouts((cast(Any, ids_in(prompts)),))), (cast(Any, ids_in(prompts)),)
        )

    def receipts(self, pending: PendingRollouts, *, what: str) -> list[RolloutReceipt]:
        assert what.startswith("the responses of step ")
        return [
            RolloutReceipt(
                num_responses=2 * len(cast(Any, ids)),
                num_tokens=9,
                versions=dict.fromkeys(cast(Any, ids), 0),
                seconds=1.5,
            )
            for ids in pending.receipts
        ]

    def gather(self, rollouts: Rollouts) -> Rollouts:
        return rollouts

    def format(self, prompts: PromptBatch, rollouts: Rollouts) -> tuple[str, ...]:
        self.judged.append(ids_in(prompts))
        return ids_in(prompts)

    def score(self, prompts: PromptBatch, rollouts: Rollouts, *, what: str) -> tuple[str, ...]:
        assert "spread" in what
        ids: tuple[str, ...] = tuple(i for part in cast(Any, rollouts.parts) for i in part)
        assert ids == ids_in(prompts)
        return ids

    def spread(
        self, rollouts: Rollouts, scores: tuple[str, ...], form: tuple[str, ...], *, step: int
    ) -> PromptFigures:
        assert form == scores
        self.looked_at.append(scores)
        spread = np.asarray([self._has_spread(i) for i in scores])
        return PromptFigures(example_ids=scores, gap=np.zeros(len(scores), np.float32), has_spread=spread)


def ids_in(prompts: PromptBatch) -> tuple[str, ...]:
    return tuple(example.id for example in prompts.examples)


@pytest.fixture(autouse=True)
def no_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_queue, "share", lambda prompts: prompts)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    path = tmp_path / "asking.yaml"
    path.write_text(CONFIG)
    return load_config(str(path))


def queue_of(config: RunConfig, groups: FakeGroups, *, num_prompts: int = 40) -> RolloutQueue:
    train = tuple(
        Example(id=f"row-{i}", messages=(Message(role="user", content="?"),), teacher_response="!")
        for i in range(num_prompts)
    )
    data = LoadedData(train=train, heldout=(), report=cast(Any, None))
    stages = Stages(config, num_prompts=num_prompts)
    return RolloutQueue(config, data=data, groups=cast(ActorGroups, groups), stages=stages)


def step(queue: RolloutQueue) -> StepRollouts:
    queue.fill()
    return queue.next_step(policy_version=0)


def ids_of(sampled: StepRollouts) -> list[str]:
    ids = [i for part in cast(Any, sampled.rollouts.parts) for i in part]
    assert list(ids_in(cast(Any, sampled.prompts))) == ids
    assert [i for form in cast(Any, sampled.form) for i in form] == ids
    return ids


def test_samples_that_are_older_than_they_may_be_are_refused(config: RunConfig) -> None:
    queue = queue_of(config, FakeGroups(lambda _: True))
    queue.fill()
    with pytest.raises(TrainingError, match="step 1 holds samples 1 versions old; max_staleness = 0"):
        queue.next_step(policy_version=1)


def test_format_terms_are_asked_once_about_each_response(config: RunConfig) -> None:
    groups = FakeGroups(lambda _: False)
    queue = queue_of(config, groups)
    ids = [*ids_of(step(queue)), *ids_of(step(queue))]
    assert [i for part in groups.judged for i in part] == ids


def test_the_warm_up_draws_no_prompt_twice_over(config: RunConfig) -> None:
    groups = FakeGroups(lambda _: False)
    answered = step(queue_of(config, groups))
    assert len(ids_of(answered)) == 4
    assert groups.looked_at == []
    assert "rollout/refill_rounds" not in answered.metrics


def test_a_batch_whose_groups_all_differ_is_left_as_it_is(config: RunConfig) -> None:
    groups = FakeGroups(lambda _: True)
    queue = queue_of(config, groups)
    step(queue)
    answered = step(queue)
    assert len(ids_of(answered)) == 4
    assert groups.looked_at == [tuple(ids_of(answered))]
    assert answered.metrics["rollout/refill_rounds"] == 0.0
    assert answered.metrics["rollout/unfilled_groups"] == 0.0


def test_a_round_draws_the_oversampled_number_of_other_prompts(config: RunConfig) -> None:
    first: list[str] = []
    groups = FakeGroups(lambda i: i not in first[:2])
    queue = queue_of(config, groups)
    step(queue)
    queue.fill()
    first += groups.asked[-1][1]
    answered = queue.next_step(policy_version=0)
    # 2 places are empty: 2 × 1.5 prompts for them, one more than there is room for.
    assert len(set(ids_of(answered))) == 7
    assert [number for number, _ in groups.asked] == [1, 2, 2]
    assert groups.looked_at == [tuple(first), tuple(ids_of(answered)[4:])]
    assert answered.metrics["rollout/refill_rounds"] == 1.0
    assert answered.metrics["rollout/refilled_groups"] == 3.0
    assert answered.metrics["rollout/unfilled_groups"] == 0.0
    assert answered.generation_s == 3.0
    assert sum(r.num_responses for r in answered.receipts) == 14


def test_rounds_end_with_the_number_allowed_and_tell_the_places_left_empty(config: RunConfig) -> None:
    groups = FakeGroups(lambda _: False)
    queue = queue_of(config, groups)
    step(queue)
    answered = step(queue)
    assert len(set(ids_of(answered))) == 4 + 6 + 6
    assert answered.metrics["rollout/refill_rounds"] == 2.0
    assert answered.metrics["rollout/unfilled_groups"] == 4.0
    assert answered.metrics["data/epoch"] == 20 / 40


def test_rounds_end_where_there_are_no_other_prompts(config: RunConfig) -> None:
    groups = FakeGroups(lambda _: False)
    queue = queue_of(config, groups, num_prompts=6)
    step(queue)
    answered = step(queue)
    assert len(set(ids_of(answered))) == 6
    assert answered.metrics["rollout/refill_rounds"] == 1.0
    assert answered.metrics["rollout/refilled_groups"] == 2.0


@pytest.mark.parametrize("broken_after", [1, 2, 4])
def test_a_run_resumed_between_steps_draws_and_refills_as_an_unbroken_one(
    config: RunConfig, broken_after: int
) -> None:
    def has_spread(i: str) -> bool:
        return int(i.removeprefix("row-")) % 3 > 0

    whole = queue_of(config, FakeGroups(has_spread))
    batches = [ids_of(step(whole)) for _ in range(6)]
    queue = queue_of(config, FakeGroups(has_spread))
    for _ in range(broken_after):
        step(queue)
    resumed = queue_of(config, FakeGroups(has_spread))
    resumed.load_state(queue.state(), step=broken_after)
    assert [ids_of(step(resumed)) for _ in range(6 - broken_after)] == batches[broken_after:]


def test_what_was_asked_ahead_is_asked_for_again_after_a_resume(config: RunConfig) -> None:
    plain = config.model_copy(
        update={"max_staleness": 2, "policy": config.policy.model_copy(update={"advantage": _keep(config)})}
    )
    groups = FakeGroups(lambda _: True)
    queue = queue_of(plain, groups)
    step(queue)
    queue.fill()
    assert [number for number, _ in groups.asked] == [1, 2, 3, 4]
    after = FakeGroups(lambda _: True)
    resumed = queue_of(plain, after)
    resumed.load_state(queue.state(), step=1)
    resumed.fill()
    assert after.asked == groups.asked[1:]


def _keep(config: RunConfig) -> Any:
    return config.policy.advantage.model_copy(update={"zero_spread": "keep", "refill": None})
