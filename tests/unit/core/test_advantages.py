from collections.abc import Sequence

import numpy as np
import pytest

from gad_ray.core.advantages import GrpoAdvantage, Rewarded
from gad_ray.core.advantages import grpo_advantages as advantages_by
from gad_ray.core.advantages.base import Float64


def grpo_advantages(
    rewards: Sequence[float], *, group: Sequence[int], std_floor: float, clip: float | None = None
) -> Float64:
    batch = Rewarded(
        rewards=np.asarray(rewards, dtype=np.float64),
        group=np.asarray(group, dtype=np.int64),
        lengths=np.ones(len(group), dtype=np.int64),
    )
    return advantages_by(batch, GrpoAdvantage(std_floor=std_floor, clip=clip))


def test_advantages_are_those_worked_out_by_hand_group_by_group():
    # Group 0: (1, 2, 6): mean 3, squares 4 + 1 + 9 = 14, deviation √(14/2) = 2.6457513.
    # Group 1: (−1, 1): mean 0, deviation √(2/1) = 1.4142136. Rows of the groups are interleaved.
    rewards = [1.0, -1.0, 2.0, 1.0, 6.0]
    advantages = grpo_advantages(rewards, group=[0, 1, 0, 1, 0], std_floor=0.1)
    assert advantages.tolist() == pytest.approx(
        [-0.7559289, -0.7071068, -0.3779645, 0.7071068, 1.1338934], abs=1e-6
    )


def test_a_small_spread_is_divided_by_the_floor_and_not_blown_up():
    # (0, 0.02): mean 0.01, deviation 0.0141 below the floor 0.1: ∓0.01/0.1.
    advantages = grpo_advantages([0.0, 0.02], group=[0, 0], std_floor=0.1)
    assert advantages.tolist() == pytest.approx([-0.1, 0.1], abs=1e-6)


def test_advantages_are_clamped_on_both_sides():
    rewards = [0.0] * 9 + [-10.0] + [0.0] * 9 + [10.0]
    group = [0] * 10 + [1] * 10
    # One of ten off by 10: mean ∓1, deviation √((9·1 + 81)/9) = 3.1622777, extreme ∓9/3.1622777 = ∓2.846.
    assert np.abs(grpo_advantages(rewards, group=group, std_floor=0.1)).max() == pytest.approx(2.8460499)
    clipped = grpo_advantages(rewards, group=group, std_floor=0.1, clip=2.0)
    assert (float(clipped.min()), float(clipped.max())) == (-2.0, 2.0)


@pytest.mark.parametrize("reward", [0.0, 0.3, -7.1, 1e4])
def test_groups_without_spread_and_groups_of_one_have_no_advantage(reward: float):
    rewards = [reward, reward, reward, reward]
    advantages = grpo_advantages(rewards, group=[0, 0, 0, 1], std_floor=0.1)
    # A mean of equal float32 values is off by a rounding, which the floor keeps small.
    assert float(np.abs(advantages).max()) <= 1e-6 * max(1.0, reward)
    assert float(advantages[3]) == 0.0


def test_other_groups_do_not_change_a_groups_advantages():
    rewards = [0.5, 2.0, -1.0]
    alone = grpo_advantages(rewards, group=[0, 0, 0], std_floor=0.1)
    beside = grpo_advantages([100.0, -3.0, *rewards], group=[0, 0, 1, 1, 1], std_floor=0.1)
    assert beside[2:].tolist() == alone.tolist()


def test_a_constant_added_to_a_groups_rewards_changes_nothing():
    rewards = [0.5, 2.0, -1.0]
    moved = grpo_advantages([reward - 8.0 for reward in rewards], group=[0, 0, 0], std_floor=0.1)
    plain = grpo_advantages(rewards, group=[0, 0, 0], std_floor=0.1)
    np.testing.assert_allclose(moved, plain, atol=1e-5)


def test_extreme_rewards_give_finite_advantages():
    advantages = grpo_advantages([-1e4, 1e4], group=[0, 0], std_floor=0.1, clip=5.0)
    # ∓10⁴/√(2·10⁸) = ∓0.7071068
    assert advantages.tolist() == pytest.approx([-0.7071068, 0.7071068])


def test_no_rewards_give_no_advantages():
    empty = grpo_advantages([], group=[], std_floor=0.1)
    assert empty.shape == (0,)
