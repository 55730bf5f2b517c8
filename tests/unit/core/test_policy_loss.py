from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gad_ray.core.policy_loss import PolicyLossStats, gspo_loss, ppo_loss

MASK = torch.tensor([[True, True, False], [True, True, True]])
ADVANTAGES = torch.tensor([1.0, -2.0])
Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None, int, int], tuple[Tensor, PolicyLossStats]]


def ppo(
    logprobs: Tensor, old: Tensor, mask: Tensor, weights: Tensor | None, tokens: int, _: int
) -> tuple[Tensor, PolicyLossStats]:
    return ppo_loss(
        logprobs,
        old_logprobs=old,
        advantages=ADVANTAGES[: len(mask)],
        mask=mask,
        clip_low=0.2,
        clip_high=0.2,
        num_tokens=tokens,
        weights=weights,
    )


def gspo(
    logprobs: Tensor, old: Tensor, mask: Tensor, weights: Tensor | None, _: int, sequences: int
) -> tuple[Tensor, PolicyLossStats]:
    return gspo_loss(
        logprobs,
        old_logprobs=old,
        advantages=ADVANTAGES[: len(mask)],
        mask=mask,
        clip_low=0.3,
        clip_high=0.3,
        num_sequences=sequences,
        weights=weights,
    )


BOTH = pytest.mark.parametrize("loss_of", [ppo, gspo])


def log_ratios() -> Tensor:
    return torch.tensor([[0.1, 0.3, 0.0], [0.5, -0.5, 0.0]], requires_grad=True)


def test_the_token_loss_and_its_gradient_are_those_worked_out_by_hand():
    # Row 0, A = 1: ρ = e^0.1 = 1.1051709, and e^0.3 = 1.3498588 clipped to 1.2.
    # Row 1, A = −2: ρ = e^0.5 = 1.6487213, not clipped (the worse of −3.2974425 and −2.4);
    #   e^−0.5 = 0.6065307 clipped to 0.8: −1.6; ρ = 1: −2.
    # Sum 1.1051709 + 1.2 − 3.2974425 − 1.6 − 2 = −4.5922716 over 5 tokens.
    logprobs = log_ratios()
    loss, stats = ppo(logprobs, torch.zeros(2, 3), MASK, None, 5, 2)
    loss.backward()
    assert float(loss) == pytest.approx(0.9184543, abs=1e-6)
    assert float(stats.pg_loss) == float(loss)
    assert float(stats.clip_fraction) == pytest.approx(2 / 5)
    assert float(stats.max_ratio_gap) == pytest.approx(0.6487213, abs=1e-6)
    # −ρA/5 where unclipped: −1.1051709/5, 2·1.6487213/5, 2/5; 0 where clipped or masked.
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([-0.2210342, 0.0, 0.0], abs=1e-6)
    assert logprobs.grad[1].tolist() == pytest.approx([0.6594885, 0.0, 0.4], abs=1e-6)


def test_the_lower_and_the_upper_bound_are_the_ones_given():
    old, one = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    for log_ratio, advantage, wanted in ((1.0, 1.0, -1.5), (-1.0, -1.0, 0.9)):
        loss, _ = ppo_loss(
            torch.tensor([[log_ratio]]),
            old_logprobs=old,
            advantages=torch.tensor([advantage]),
            mask=one,
            clip_low=0.1,
            clip_high=0.5,
            num_tokens=1,
        )
        assert float(loss) == pytest.approx(wanted)


def test_the_sequence_loss_and_its_gradient_are_those_worked_out_by_hand():
    # Row 0, A = 1: mean log ρ = (0.1 + 0.3)/2 = 0.2, s = e^0.2 = 1.2214028, within 1.3.
    # Row 1, A = −2: mean log ρ = 0, s = 1. Loss −(1.2214028 − 2)/2 = 0.3892986.
    logprobs = log_ratios()
    loss, stats = gspo(logprobs, torch.zeros(2, 3), MASK, None, 5, 2)
    loss.backward()
    assert float(loss) == pytest.approx(0.3892986, abs=1e-6)
    assert float(stats.clip_fraction) == 0.0
    assert float(stats.max_ratio_gap) == pytest.approx(0.6487213, abs=1e-6)
    # −sA/(2·length): −1.2214028/4 = −0.3053507 on two tokens; 2/(2·3) = 0.3333333 on three.
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([-0.3053507, -0.3053507, 0.0], abs=1e-6)
    assert logprobs.grad[1].tolist() == pytest.approx([0.3333333] * 3, abs=1e-6)


def test_a_clipped_sequence_costs_its_bound_and_has_no_gradient():
    # Mean log ρ = 0.02, s = 1.0202 above 1.01: −1.01·1.
    logprobs = torch.tensor([[0.01, 0.03]], requires_grad=True)
    loss, stats = gspo_loss(
        logprobs,
        old_logprobs=torch.zeros(1, 2),
        advantages=torch.ones(1),
        mask=torch.ones(1, 2, dtype=torch.bool),
        clip_low=0.01,
        clip_high=0.01,
        num_sequences=1,
    )
    loss.backward()
    assert float(loss) == pytest.approx(-1.01, abs=1e-6)
    assert float(stats.clip_fraction) == 1.0
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.0, 0.0]]


def test_token_weights_multiply_the_token_loss():
    # The unclipped parts of the first test, weighed 2, 1, 0.5, 1, 0:
    # 2.2103418 + 1.2 − 1.6487213 − 1.6 + 0 = 0.1616205 over 5 tokens.
    weights = torch.tensor([[2.0, 1.0, 9.0], [0.5, 1.0, 0.0]])
    loss, _ = ppo(log_ratios(), torch.zeros(2, 3), MASK, weights, 5, 2)
    assert float(loss) == pytest.approx(-0.0323241, abs=1e-6)


def test_the_mean_token_weight_of_a_response_multiplies_its_sequence_loss():
    # Means over the mask: (2 + 1)/2 = 1.5 and (0.5 + 1 + 0)/3 = 0.5: −(1.5·1.2214028 − 0.5·2)/2.
    weights = torch.tensor([[2.0, 1.0, 9.0], [0.5, 1.0, 0.0]])
    loss, _ = gspo(log_ratios(), torch.zeros(2, 3), MASK, weights, 5, 2)
    assert float(loss) == pytest.approx(-0.4160521, abs=1e-6)


@BOTH
@pytest.mark.parametrize("junk", [1e4, -1e4, float("nan"), float("inf")])
def test_what_stands_outside_the_mask_changes_neither_value_nor_gradient(loss_of: Loss, junk: float):
    results = []
    for outside in (0.0, junk):
        logprobs = torch.where(MASK, log_ratios().detach(), outside).requires_grad_()
        old = torch.where(MASK, torch.zeros(2, 3), -outside)
        weights = torch.where(MASK, torch.ones(2, 3), outside)
        loss, stats = loss_of(logprobs, old, MASK, weights, 5, 2)
        loss.backward()
        results.append((float(loss), logprobs.grad, float(stats.clip_fraction), float(stats.max_ratio_gap)))
    (value, gradient, *figures), (other_value, other_gradient, *other_figures) = results
    assert other_value == value
    assert torch.equal(other_gradient, gradient)
    assert other_figures == figures


@BOTH
def test_parts_of_a_batch_add_up_to_the_whole_in_value_gradient_and_figures(loss_of: Loss):
    whole = log_ratios()
    loss, stats = loss_of(whole, torch.zeros(2, 3), MASK, None, 5, 2)
    loss.backward()
    split = log_ratios()
    total = clip = 0.0
    for row in (0, 1):
        columns = 2 if row == 0 else 3  # the micro-batch of the shorter row is padded less
        part, figures = row_loss(loss_of, split, row, columns)
        part.backward()
        total, clip = total + float(part), clip + float(figures.clip_fraction)
    assert total == pytest.approx(float(loss), rel=1e-6)
    assert clip == pytest.approx(float(stats.clip_fraction))
    assert torch.allclose(split.grad, whole.grad, rtol=1e-6)


def row_loss(loss_of: Loss, logprobs: Tensor, row: int, columns: int) -> tuple[Tensor, PolicyLossStats]:
    settings: dict[str, Any] = (
        {"clip_low": 0.2, "clip_high": 0.2, "num_tokens": 5}
        if loss_of is ppo
        else {"clip_low": 0.3, "clip_high": 0.3, "num_sequences": 2}
    )
    function = ppo_loss if loss_of is ppo else gspo_loss
    return function(
        logprobs[row : row + 1, :columns],
        old_logprobs=torch.zeros(1, columns),
        advantages=ADVANTAGES[row : row + 1],
        mask=MASK[row : row + 1, :columns],
        **settings,
    )


@BOTH
def test_a_step_down_the_gradient_favours_what_was_better_than_its_group(loss_of: Loss):
    logprobs = torch.full((2, 3), -1.0, requires_grad=True)
    loss, _ = loss_of(logprobs, logprobs.detach(), MASK, None, 5, 2)
    loss.backward()
    assert logprobs.grad is not None
    assert bool((logprobs.grad[0, :2] < 0).all())
    assert bool((logprobs.grad[1] > 0).all())


@BOTH
def test_the_first_pass_over_fresh_samples_has_a_ratio_of_exactly_1(loss_of: Loss):
    logprobs = -3 * torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    _, stats = loss_of(logprobs, logprobs, MASK, None, 5, 2)
    assert float(stats.max_ratio_gap) == 0.0
    assert float(stats.clip_fraction) == 0.0


@BOTH
def test_one_token_that_has_become_far_less_likely_stays_finite(loss_of: Loss):
    logprobs = torch.tensor([[-1e4]], requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, _ = loss_of(logprobs, torch.tensor([[-0.1]]), mask, None, 1, 1)
    loss.backward()
    assert logprobs.grad is not None
    # ρ = 0, and A = 1: the worse of 0 and the bound is 0.
    assert float(loss) == 0.0
    assert float(logprobs.grad) == 0.0
