import pytest
import torch

from gad_ray.core.pooling import mean_pool

MASK = torch.tensor([[False, True, True, False], [True, False, False, False]])


def test_a_score_is_the_mean_over_the_mask_and_so_is_its_gradient():
    # Row 0: (2 + 4)/2 = 3, gradient 1/2 on both; row 1, a single token: its value, gradient 1.
    values = torch.tensor([[1.0, 2.0, 4.0, 9.0], [-7.0, 1.0, 1.0, 1.0]], requires_grad=True)
    scores = mean_pool(values, MASK)
    scores.sum().backward()
    assert scores.tolist() == [3.0, -7.0]
    assert values.grad is not None
    assert values.grad.tolist() == [[0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("junk", [1e30, float("nan"), float("-inf")])
def test_what_stands_outside_the_mask_changes_neither_score_nor_gradient(junk: float):
    values = torch.where(MASK, torch.ones(2, 4), junk).requires_grad_()
    scores = mean_pool(values, MASK)
    scores.sum().backward()
    assert scores.tolist() == [1.0, 1.0]
    assert values.grad is not None
    assert values.grad.tolist() == [[0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]]


def test_one_tokens_noise_is_divided_by_the_length():
    values = torch.zeros(1, 100)
    values[0, -1] = 3.0
    assert float(mean_pool(values, torch.ones(1, 100, dtype=torch.bool))) == pytest.approx(0.03)


def test_bfloat16_values_are_summed_in_float32():
    # In bfloat16, 256 + 1 is 256 again: the mean of 512 ones would be 0.5.
    scores = mean_pool(torch.ones(1, 512, dtype=torch.bfloat16), torch.ones(1, 512, dtype=torch.bool))
    assert scores.dtype == torch.float32
    assert float(scores) == 1.0


def test_extreme_values_stay_finite():
    values = torch.tensor([[1e4, -1e4, 1e4, -1e4]])
    assert float(mean_pool(values, torch.ones(1, 4, dtype=torch.bool))) == 0.0
