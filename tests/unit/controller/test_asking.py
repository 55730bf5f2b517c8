"""Drawing, asking ahead and refilling, with groups of actors that answer at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from gad_ray.actors.groups import Groups, RolloutRefs
from gad_ray.batch import (
    Example,
    Message,
    PromptBatch,
    PromptFigures,
    RolloutReceipt,
    SamplingSettings,
)
from gad_ray.config import RunConfig, load_config
from gad_ray.controller.asking import Answered, Asking
from gad_ray.data.dataset import LoadedData

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
        self.critic = [self]
        self.waiter = self

    def share(self, prompts: PromptBatch) -> tuple[str, ...]:
        return tuple(example.id for example in prompts.examples)

    def generate(self, prompts: PromptBatch, sampling: SamplingSettings) -> RolloutRefs:
        assert sampling.num_responses == 2
        self.asked.append((prompts.step, self.share(prompts)))
        return RolloutRefs(batches=(self.share(prompts),), receipts=(self.share(prompts),))

    def receipts(self, refs: RolloutRefs, *, what: str) -> list[RolloutReceipt]:
        assert what.startswith("the responses of step ")
        return [
            RolloutReceipt(num_responses=2 * len(ids), num_tokens=9, policy_version=0, seconds=1.5)
            for ids in refs.receipts
        ]

    @property
    def look_at(self) -> FakeGroups:
        return self

    def remote(self, prompts: tuple[str, ...], *parts: tuple[str, ...]) -> PromptFigures:
        ids = tuple(i for part in parts for i in part)
        assert ids == prompts
        self.looked_at.append(ids)
        spread = np.asarray([self._has_spread(i) for i in ids])
        return PromptFigures(example_ids=ids, gap=np.zeros(len(ids), np.float32), has_spread=spread)

    def get(self, refs: Sequence[PromptFigures], *, what: str, deadline_s: float) -> list[PromptFigures]:
        assert "spread" in what
        assert deadline_s > 0
        return list(refs)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    path = tmp_path / "asking.yaml"
    path.write_text(CONFIG)
    return load_config(str(path))


def asking_of(config: RunConfig, groups: FakeGroups, *, num_prompts: int = 40) -> Asking:
    train = tuple(
        Example(id=f"row-{i}", messages=(Message(role="user", content="?"),), teacher_response="!")
        for i in range(num_prompts)
    )
    data = LoadedData(train=train, heldout=(), report=cast(Any, None))
    return Asking(config, data=data, groups=cast(Groups, groups), warmup_steps=1, total_steps=6)


def step(asking: Asking) -> Answered:
    asking.ahead()
    return asking.next_step()


def ids_of(answered: Answered) -> list[str]:
    ids = [i for batch in answered.batches for i in batch]
    assert list(answered.prompts) == ids
    return ids


def test_the_warm_up_draws_no_prompt_twice_over(config: RunConfig) -> None:
    groups = FakeGroups(lambda _: False)
    answered = step(asking_of(config, groups))
    assert len(ids_of(answered)) == 4
    assert groups.looked_at == []
    assert "rollout/refill_rounds" not in answered.metrics


def test_a_batch_whose_groups_all_differ_is_left_as_it_is(config: RunConfig) -> None:
    groups = FakeGroups(lambda _: True)
    asking = asking_of(config, groups)
    step(asking)
    answered = step(asking)
    assert len(ids_of(answered)) == 4
    assert groups.looked_at == [tuple(ids_of(answered))]
    assert answered.metrics["rollout/refill_rounds"] == 0.0
    assert answered.metrics["rollout/unfilled_groups"] == 0.0


def test_a_round_draws_the_oversampled_number_of_other_prompts(config: RunConfig) -> None:
    first: list[str] = []
    groups = FakeGroups(lambda i: i not in first[:2])
    asking = asking_of(config, groups)
    step(asking)
    asking.ahead()
    first += groups.asked[-1][1]
    answered = asking.next_step()
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
    asking = asking_of(config, groups)
    step(asking)
    answered = step(asking)
    assert len(set(ids_of(answered))) == 4 + 6 + 6
    assert answered.metrics["rollout/refill_rounds"] == 2.0
    assert answered.metrics["rollout/unfilled_groups"] == 4.0
    assert answered.metrics["data/epoch"] == 20 / 40


def test_rounds_end_where_there_are_no_other_prompts(config: RunConfig) -> None:
    groups = FakeGroups(lambda _: False)
    asking = asking_of(config, groups, num_prompts=6)
    step(asking)
    answered = step(asking)
    assert len(set(ids_of(answered))) == 6
    assert answered.metrics["rollout/refill_rounds"] == 1.0
    assert answered.metrics["rollout/refilled_groups"] == 2.0


@pytest.mark.parametrize("broken_after", [1, 2, 4])
def test_a_run_resumed_between_steps_draws_and_refills_as_an_unbroken_one(
    config: RunConfig, broken_after: int
) -> None:
    def has_spread(i: str) -> bool:
        return int(i.removeprefix("row-")) % 3 > 0

    whole = asking_of(config, FakeGroups(has_spread))
    batches = [ids_of(step(whole)) for _ in range(6)]
    asking = asking_of(config, FakeGroups(has_spread))
    for _ in range(broken_after):
        step(asking)
    resumed = asking_of(config, FakeGroups(has_spread))
    resumed.load_state(asking.state(), step=broken_after)
    assert [ids_of(step(resumed)) for _ in range(6 - broken_after)] == batches[broken_after:]


def test_what_was_asked_ahead_is_asked_for_again_after_a_resume(config: RunConfig) -> None:
    plain = config.model_copy(
        update={"max_staleness": 2, "policy": config.policy.model_copy(update={"advantage": _keep(config)})}
    )
    groups = FakeGroups(lambda _: True)
    asking = asking_of(plain, groups)
    step(asking)
    asking.ahead()
    assert [number for number, _ in groups.asked] == [1, 2, 3, 4]
    after = FakeGroups(lambda _: True)
    resumed = asking_of(plain, after)
    resumed.load_state(asking.state(), step=1)
    resumed.ahead()
    assert after.asked == groups.asked[1:]


def _keep(config: RunConfig) -> Any:
    return config.policy.advantage.model_copy(update={"zero_spread": "keep", "refill": None})
