import math

import pytest
import torch

from gad_ray.core.logprobs import token_logprobs

# Probabilities (1, 2, 5)/8, and the same logits shifted, which changes nothing.
LOGITS = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)]])


def test_log_probability_entropy_and_gradient_are_those_worked_out_by_hand():
    # log(2/8) = −1.3862944; entropy = (ln 8)/8 + (ln 4)/4 + (5/8)·ln 1.6
    #         = 0.2599302 + 0.3465736 + 0.2937523 = 0.9002561
    logits = (LOGITS + 50.0).requires_grad_()
    chosen, entropy = token_logprobs(logits, torch.tensor([1]))
    chosen.sum().backward()
    assert chosen.tolist() == pytest.approx([-1.3862944], abs=1e-5)
    assert entropy.tolist() == pytest.approx([0.9002561], abs=1e-5)
    # One minus the probability at the target, minus the probability elsewhere.
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([-0.125, 0.75, -0.625], abs=1e-5)


def test_bfloat16_logits_give_float32_results_of_their_own_values():
    logits = torch.tensor([[1.0, 2.0, -0.5]], dtype=torch.bfloat16)
    chosen, entropy = token_logprobs(logits, torch.tensor([0]))
    wanted = torch.log_softmax(logits.double(), -1)[0, 0]
    assert chosen.dtype == entropy.dtype == torch.float32
    # bfloat16 has steps of 0.008 here: the result cannot have been rounded to it.
    assert float(chosen) == pytest.approx(float(wanted), abs=1e-6)


def test_entropy_carries_no_gradient():
    _, entropy = token_logprobs(LOGITS.clone().requires_grad_(), torch.tensor([0]))
    assert not entropy.requires_grad


def test_extreme_logits_give_finite_results_and_gradients():
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]], requires_grad=True)
    chosen, entropy = token_logprobs(logits, torch.tensor([0, 1]))
    chosen.sum().backward()
    assert chosen.tolist() == [0.0, -2e4]
    assert entropy.tolist() == [0.0, 0.0]
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0], [-1.0, 1.0]]
