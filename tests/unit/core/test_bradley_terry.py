import math

import pytest
import torch
from torch import Tensor

from gad_ray.core.discriminator import bradley_terry_loss

LOG_2 = 0.6931472


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, requires_grad=True)


def pairs(count: int) -> Tensor:
    return torch.arange(count)


def test_the_loss_and_its_gradient_are_those_worked_out_by_hand():
    # d = (2 − 0.5, 2 − 3, −1 − (−1)) = (1.5, −1, 0); x = (d − 0.5)/2 = (0.5, −0.75, −0.25)
    # rank = (ln(1 + e^−0.5) + ln(1 + e^0.75) + ln(1 + e^0.25))/3
    #      = (0.4740770 + 1.1368710 + 0.8259394)/3 = 0.8122958
    # reg  = 0.1·((1² + 0²)/2 + (0² + 2² + 0²)/3) = 0.1·(0.5 + 1.3333333) = 0.1833333
    teacher, student = leaf(2.0, -1.0), leaf(0.5, 3.0, -1.0)
    loss, stats = bradley_terry_loss(
        teacher,
        student,
        group=torch.tensor([0, 0, 1]),
        temperature=2.0,
        margin=0.5,
        reg_threshold=1.0,
        reg_weight=0.1,
    )
    loss.backward()
    assert float(stats.rank) == pytest.approx(0.8122958, abs=1e-6)
    assert float(stats.reg) == pytest.approx(0.1833333, abs=1e-6)
    assert float(loss) == pytest.approx(0.9956291, abs=1e-6)
    # ∂rank/∂s_S = σ(−x)/(τ·3): (0.3775407, 0.6791787, 0.5621765)/6 = (0.0629234, 0.1131964, 0.0936961);
    # the teacher's is minus the sum over its group: (−0.1761199, −0.0936961).
    # ∂reg/∂s = w·2·(|s| − c)·sign(s)/count: teacher 0.1·2·1/2 = 0.1, student 0.1·2·2/3 = 0.1333333.
    assert teacher.grad is not None
    assert student.grad is not None
    assert teacher.grad.tolist() == pytest.approx([-0.1761199 + 0.1, -0.0936961], abs=1e-6)
    assert student.grad.tolist() == pytest.approx([0.0629234, 0.1131964 + 0.1333333, 0.0936961], abs=1e-6)


def test_equal_scores_cost_log_2_at_margin_0():
    for score in (0.0, 3.25, -1e4):
        loss, _ = bradley_terry_loss(leaf(score), leaf(score), group=pairs(1), temperature=5.0)
        assert float(loss) == pytest.approx(LOG_2, abs=1e-6)


def test_a_teacher_above_the_student_costs_less_than_one_below():
    losses = [
        float(bradley_terry_loss(leaf(t), leaf(0.0), group=pairs(1), temperature=1.0)[0])
        for t in (-1.0, 0.0, 1.0)
    ]
    assert losses[0] > losses[1] > losses[2]


def test_a_step_down_the_gradient_raises_the_teacher_and_lowers_the_student():
    teacher, student = leaf(0.3, -2.0), leaf(0.4, 5.0)
    bradley_terry_loss(teacher, student, group=pairs(2), temperature=1.0)[0].backward()
    assert teacher.grad is not None
    assert student.grad is not None
    assert bool((teacher.grad < 0).all())
    assert bool((student.grad > 0).all())


@pytest.mark.parametrize(("temperature", "sigmoid"), [(2.0, 0.993), (5.0, 0.877)])
def test_a_difference_of_9_81_saturates_at_temperature_2_and_not_at_5(temperature: float, sigmoid: float):
    # The gradient is (1 − σ(d/τ))/τ: what is left to learn.
    student = leaf(-4.30)
    loss, _ = bradley_terry_loss(leaf(5.51), student, group=pairs(1), temperature=temperature)
    loss.backward()
    assert math.exp(-float(loss)) == pytest.approx(sigmoid, abs=5e-4)
    assert student.grad is not None
    assert float(student.grad) == pytest.approx((1 - sigmoid) / temperature, abs=5e-4)


@pytest.mark.parametrize(("difference", "rank"), [(2e4, 0.0), (-2e4, 4000.0)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_extreme_scores_stay_finite_in_value_and_gradient(difference: float, rank: float, batch_norm: bool):
    teacher, student = leaf(difference / 2), leaf(-difference / 2)
    loss, stats = bradley_terry_loss(
        teacher,
        student,
        group=pairs(1),
        temperature=5.0,
        reg_threshold=3.0,
        reg_weight=0.01,
        batch_norm=batch_norm,
    )
    loss.backward()
    if not batch_norm:
        # softplus(∓20000/5): 0, or 4000 to the last bit.
        assert float(stats.rank) == pytest.approx(rank, abs=1e-6)
    for part in (loss, teacher.grad, student.grad):
        assert part is not None
        assert bool(torch.isfinite(part).all())


def test_the_penalty_leaves_scores_within_the_threshold_alone():
    teacher, student = leaf(3.0), leaf(-3.0)
    _, stats = bradley_terry_loss(
        teacher, student, group=pairs(1), temperature=5.0, reg_threshold=3.0, reg_weight=1.0
    )
    assert float(stats.reg) == 0.0


def test_batch_normalisation_uses_one_mean_and_deviation_of_both_sides_together():
    # All four scores (4, 2, 0, 2): mean 2, variance (4 + 0 + 4 + 0)/4 = 2, deviation 1.4142136.
    # d = (4, 0)/1.4142136 = (2.8284271, 0); rank = (ln(1 + e^−2.8284271) + ln 2)/2
    #   = (0.0574245 + 0.6931472)/2 = 0.3752858. Each side by itself would give d = 0 and log 2.
    loss, stats = bradley_terry_loss(
        leaf(4.0, 2.0), leaf(0.0, 2.0), group=pairs(2), temperature=1.0, batch_norm=True
    )
    assert float(loss) == pytest.approx(0.3752858, abs=1e-6)
    assert float(stats.batch_mean) == pytest.approx(2.0)
    assert float(stats.batch_std) == pytest.approx(1.4142136)


def test_under_batch_normalisation_a_teachers_score_counts_once_for_each_response_to_its_prompt():
    # Pairs (3, 1), (3, 1), (1, −1): the six scores' mean is 8/6, their variance 22/6 − (8/6)² = 1.8888889.
    # d = 2/1.3743685 = 1.4552138 for each; rank = ln(1 + e^−1.4552138) = 0.2097337.
    loss, stats = bradley_terry_loss(
        leaf(3.0, 1.0),
        leaf(1.0, 1.0, -1.0),
        group=torch.tensor([0, 0, 1]),
        temperature=1.0,
        batch_norm=True,
    )
    assert float(stats.batch_mean) == pytest.approx(8 / 6)
    assert float(stats.batch_std) == pytest.approx(1.3743685)
    assert float(loss) == pytest.approx(0.2097337, abs=1e-6)


@pytest.mark.parametrize("responses", [1, 4, 8])
def test_the_number_of_responses_does_not_stretch_a_normalised_difference(responses: int):
    # Every teacher's score is 1 and every student's −1: d = 2, and rank = ln(1 + e^−2) = 0.1269280.
    loss, stats = bradley_terry_loss(
        leaf(1.0),
        leaf(*[-1.0] * responses),
        group=torch.zeros(responses, dtype=torch.int64),
        temperature=1.0,
        batch_norm=True,
    )
    assert (float(stats.batch_mean), float(stats.batch_std)) == (pytest.approx(0.0), pytest.approx(1.0))
    assert float(loss) == pytest.approx(0.1269280, abs=1e-6)
    assert float(stats.sigmoid) == pytest.approx(0.8807971, abs=1e-6)


def test_batch_normalisation_is_blind_to_scale_and_shift_and_so_is_its_gradient():
    teacher, student, group = leaf(1.0, 0.2, -0.7), leaf(0.5, -1.5, 0.9), pairs(3)
    loss, _ = bradley_terry_loss(teacher, student, group=group, temperature=0.5, batch_norm=True)
    moved, _ = bradley_terry_loss(
        7.0 * teacher.detach() + 3.0,
        7.0 * student.detach() + 3.0,
        group=group,
        temperature=0.5,
        batch_norm=True,
    )
    assert float(moved) == pytest.approx(float(loss), abs=1e-6)
    loss.backward()
    assert teacher.grad is not None
    assert student.grad is not None
    gradient = torch.cat([teacher.grad, student.grad])
    scores = torch.cat([teacher, student]).detach()
    assert float(gradient.norm()) > 0.01
    assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-6)
    assert float(gradient @ scores) == pytest.approx(0.0, abs=1e-6)


def test_equal_scores_under_batch_normalisation_cost_log_2_and_have_a_finite_gradient():
    teacher, student = leaf(1.5, 1.5), leaf(1.5, 1.5)
    loss, _ = bradley_terry_loss(teacher, student, group=pairs(2), temperature=5.0, batch_norm=True)
    loss.backward()
    assert float(loss) == pytest.approx(LOG_2, abs=1e-6)
    assert teacher.grad is not None
    assert bool(torch.isfinite(teacher.grad).all())


def test_the_penalty_is_of_raw_scores_also_under_batch_normalisation():
    # Normalised, no score exceeds 1.5; raw ones do: 1·((10 − 3)² + (4 − 3)²) = 50.
    _, stats = bradley_terry_loss(
        leaf(10.0),
        leaf(4.0),
        group=pairs(1),
        temperature=1.0,
        reg_threshold=3.0,
        reg_weight=1.0,
        batch_norm=True,
    )
    assert float(stats.reg) == pytest.approx(50.0, rel=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole_in_value_and_gradient():
    torch.manual_seed(0)
    scores_t, scores_s = 4 * torch.randn(3), 4 * torch.randn(5)
    group = torch.tensor([0, 0, 0, 1, 2])
    settings = {"temperature": 2.0, "margin": 0.3, "reg_threshold": 1.0, "reg_weight": 0.1}
    teacher, student = scores_t.clone().requires_grad_(), scores_s.clone().requires_grad_()
    whole, _ = bradley_terry_loss(teacher, student, group=group, **settings)
    whole.backward()
    split_t, split_s = scores_t.clone().requires_grad_(), scores_s.clone().requires_grad_()
    total = 0.0
    for prompts, responses in ((slice(0, 1), slice(0, 3)), (slice(1, 3), slice(3, 5))):
        part, _ = bradley_terry_loss(
            split_t[prompts],
            split_s[responses],
            group=group[responses] - prompts.start,
            num_prompts=3,
            num_responses=5,
            **settings,
        )
        part.backward()
        total += float(part)
    assert total == pytest.approx(float(whole), rel=1e-6)
    assert torch.allclose(split_t.grad, teacher.grad, rtol=1e-6)
    assert torch.allclose(split_s.grad, student.grad, rtol=1e-6)
