import math

import pytest
import torch

from gad_ray.core.importance import truncated_weights

MASK = torch.tensor([[True, True, True, False]])


def test_weights_are_the_ratio_of_the_two_programs_up_to_the_cap():
    # e^(ln 0.5) = 0.5, e^(ln 1.5) = 1.5, e^(ln 4) = 4 cut at 2; outside the mask 1.
    rollout = torch.tensor([[-1.0, -2.0, -3.0, 7.0]])
    old = rollout + torch.tensor([[math.log(0.5), math.log(1.5), math.log(4.0), 5.0]])
    weights = truncated_weights(old, rollout_logprobs=rollout, mask=MASK, cap=2.0)
    assert weights[0].tolist() == pytest.approx([0.5, 1.5, 2.0, 1.0], rel=1e-6)


def test_programs_that_agree_give_weights_of_exactly_1():
    old = torch.tensor([[-0.1, -20.0, -3.3, -1.0]])
    assert truncated_weights(old, rollout_logprobs=old, mask=MASK, cap=2.0).tolist() == [[1.0] * 4]


def test_weights_carry_no_gradient():
    old = torch.zeros(1, 4, requires_grad=True)
    assert not truncated_weights(old, rollout_logprobs=torch.ones(1, 4), mask=MASK, cap=2.0).requires_grad


def test_a_token_that_the_trainer_finds_all_but_impossible_weighs_nothing_and_one_the_other_way_the_cap():
    old = torch.tensor([[-1e4, -0.1, -1.0, float("nan")]])
    rollout = torch.tensor([[-0.1, -1e4, -1.0, 0.0]])
    weights = truncated_weights(old, rollout_logprobs=rollout, mask=MASK, cap=3.0)
    assert weights.tolist() == [[0.0, 3.0, 1.0, 1.0]]
