"""Every formula of the cost model against a number worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gad_ray.planning.cost_model import (
    Cluster,
    Engine,
    Group,
    ModelSize,
    Passes,
    Work,
    fit_seconds,
    game_seconds,
    rollout_seconds,
    step_seconds,
    sync_seconds,
)
from gad_ray.planning.devices import Device

MODEL = ModelSize(parameters=12, backbone=10, head=6, layers=1, hidden=2, key_value_width=1)
DEVICE = Device(
    name="by hand",
    rates={"float32": 10.0, "bfloat16": 20.0},
    bandwidth=56.0,
    link=8.0,
    train=0.5,
    score=0.25,
    prefill=0.5,
    read=0.5,
    copy=0.5,
)
ONE = Group(num=1, device=DEVICE, precision="float32")
WORK = Work(
    prompts=3,
    responses_per_prompt=2,
    prompt_tokens=4,
    response_tokens=2,
    longest_response=5,
    teacher_tokens=3,
    policy=Passes(trained=1),
    critic=Passes(trained=1),
)
CLUSTER = Cluster(policy=ONE, critic=ONE, rollout=ONE, engine=Engine(slots=4, continuous=True))


def test_a_forward_pass_multiplies_every_token_with_the_backbone_and_those_before_it() -> None:
    # 3 × (2 × 10 + 4 × 1 × 2 × 4), and 2 × 6 for each of 2 distributions.
    assert MODEL.forward_flop(3, context=4, predicted=2) == 3 * (20 + 32) + 24 == 180


def test_an_answer_sees_its_prompt_and_half_of_itself() -> None:
    # Prompts: 2 × 4 tokens that see 2. Answers: 3 × 2 tokens that see 4 + 1, each predicted.
    assert MODEL.text_flop(2, 4, [(3, 2)]) == 8 * (20 + 16) + 6 * (20 + 40) + 72 == 720


def test_a_prompt_is_computed_for_each_response_or_once_for_all() -> None:
    # 6 or 3 prompts of 4 tokens at 36, and 12 tokens of responses at 60 + 12.
    assert WORK.policy_flop(MODEL) == 24 * 36 + 12 * 72 == 1728
    assert replace(WORK, policy_shares=True).policy_flop(MODEL) == 12 * 36 + 12 * 72


def test_the_critic_reads_responses_and_teachers_and_what_is_replayed() -> None:
    critic = replace(MODEL, head=0)
    # 9 prompts at 36 a token; 12 tokens at 60; 9 tokens of the teacher that see 5.5: 20 + 44.
    assert WORK.critic_flop(critic) == 36 * 36 + 12 * 60 + 9 * 64 == 2592
    # One more response, with a prompt and a teacher's text of its own.
    assert replace(WORK, replayed=1).critic_flop(critic) == 2592 + 8 * 36 + 2 * 60 + 3 * 64
    # Prompts shared within a group.
    assert replace(WORK, critic_shares=True).critic_flop(critic) == 12 * 36 + 12 * 60 + 9 * 64


def test_a_pass_with_a_gradient_costs_three_forward_passes_and_four_where_activations_are_computed_anew() -> (
    None
):
    passes = Passes(trained=2)
    # 100 FLOP at 10 a second are 10 s; × 2 × 3 at half of the rate.
    assert passes.seconds(100, ONE, prompts=3) == pytest.approx(120)
    assert replace(passes, recomputes=True).seconds(100, ONE, prompts=3) == pytest.approx(160)
    # Adapters leave the gradients of the weights out.
    assert replace(passes, adapters=True).seconds(100, ONE, prompts=3) == pytest.approx(80)
    # A forward pass alone runs at a quarter of the rate.
    assert replace(passes, scored=1).seconds(100, ONE, prompts=3) == pytest.approx(160)


def test_the_rank_with_the_most_prompts_decides() -> None:
    two = replace(ONE, num=2)
    assert Passes(trained=1).seconds(100, two, prompts=3) == pytest.approx(60 * 2 / 3)


def test_an_optimiser_step_reads_and_writes_28_bytes_a_weight() -> None:
    # 5 × 28 bytes at half of 56 a second.
    assert Passes(optimizer_steps=1, trained_weights=5).seconds(0, ONE, prompts=1) == pytest.approx(5)


def test_an_engine_that_fills_up_decodes_until_the_longest_response_or_all_tokens_are_there() -> None:
    # 6 rows of 2 tokens in 4 slots are 3 steps; the longest takes 5. Reading: 5 × 12 × 4 bytes of weights, and 12 tokens ×
    # 5 seen × 2 × 4 bytes of cache, at 28 a second. Computing: 12 × (20 + 40 + 12) at 2.5 a second is longer.
    # Prefill: 3 prompts × 4 tokens × 36 at 5 a second.
    engine = Engine(slots=4, continuous=True, step_s=1.0)
    assert (5 * 48 + 12 * 5 * 8) / 28 < 12 * 72 / 2.5
    assert rollout_seconds(WORK, MODEL, ONE, engine) == pytest.approx(12 * 36 / 5 + 12 * 72 / 2.5 + 5)


def test_a_fast_device_waits_for_its_memory() -> None:
    fast = replace(ONE, device=replace(DEVICE, rates={"float32": 1e9}))
    engine = Engine(slots=1, continuous=True)
    # In one slot 12 tokens come one after the other.
    assert rollout_seconds(WORK, MODEL, fast, engine) == pytest.approx((12 * 48 + 480) / 28, rel=1e-4)
    # Over two devices each holds half of the weights.
    wide = replace(fast, devices_each=2)
    assert rollout_seconds(WORK, MODEL, wide, engine) == pytest.approx((12 * 48 + 480) / 56, rel=1e-4)


def test_an_engine_that_decodes_whole_batches_computes_every_row_to_the_longest() -> None:
    # 6 rows in 4 slots: two batches of 5 steps. 30 tokens that see 6.5 at 20 + 52 + 12; 6 × 4 tokens of prefill at 36.
    engine = Engine(slots=4, continuous=False, step_s=1.0)
    assert rollout_seconds(WORK, MODEL, ONE, engine) == pytest.approx(24 * 36 / 5 + 30 * 84 / 2.5 + 10)


def test_a_weight_sync_goes_out_of_one_memory_and_into_others_at_the_same_time() -> None:
    # 12 × 4 bytes at half of 8 a second, twice; the number of workers does not matter.
    assert sync_seconds(MODEL, CLUSTER) == pytest.approx(24)
    assert sync_seconds(MODEL, replace(CLUSTER, rollout=replace(ONE, num=3))) == pytest.approx(24)


def test_a_step_of_the_game_has_these_parts() -> None:
    work = replace(WORK, penalty_passes=2)
    parts = game_seconds(work, CLUSTER, policy=MODEL, critic=replace(MODEL, head=0))
    assert parts == {
        "rollout": pytest.approx(12 * 36 / 5 + 12 * 72 / 2.5),
        "critic": pytest.approx(2592 / 10 * 3 / 0.5),
        "reward": pytest.approx(1728 / 10 * 2 / 0.25),
        "policy": pytest.approx(1728 / 10 * 3 / 0.5),
        "sync": pytest.approx(24),
        "other": 0.0,
    }
    # Cross-entropy on 3 teacher's texts: 12 tokens at 36, 9 at 64 + 12.
    assert fit_seconds(work, CLUSTER, policy=MODEL) == pytest.approx((12 * 36 + 9 * 76) / 10 * 3 / 0.5)


def test_parts_that_go_on_at_the_same_time_are_not_added() -> None:
    parts = {"rollout": 10.0, "critic": 4.0, "reward": 1.0, "policy": 6.0, "sync": 2.0, "other": 0.5}
    assert step_seconds(parts, CLUSTER) == 23.5
    assert step_seconds(parts, replace(CLUSTER, learn_together=True)) == 19.5
    assert step_seconds(parts, replace(CLUSTER, rollout_ahead=True)) == 13.5
    assert step_seconds({**parts, "rollout": 20.0}, replace(CLUSTER, rollout_ahead=True)) == 22.0
