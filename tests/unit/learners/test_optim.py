import math
from typing import Any

import pytest
import torch
from torch import nn

from gad_ray.config.models import OptimizerConfig
from gad_ray.errors import TrainingError
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.optim import MasterOptimizer, ParameterGroup, schedule_factor


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    return {
        "matrix": nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=dtype)),
        "bias": nn.Parameter(torch.tensor([3.0, -1.0], dtype=dtype)),
    }


def optimizer_of(
    given: dict[str, nn.Parameter],
    *,
    master: torch.dtype = torch.float32,
    max_nonfinite: int = 2,
    **config: Any,
) -> MasterOptimizer:
    return MasterOptimizer(
        [ParameterGroup(parameters=given, lr=config.pop("group_lr", 0.1))],
        OptimizerConfig(**{"lr": 0.1, "grad_clip": 1e9, **config}),
        master_dtype=master,
        total_steps=10,
        collective=LocalCollective(),
        max_nonfinite_steps=max_nonfinite,
    )


def backward(optimizer: MasterOptimizer, given: dict[str, nn.Parameter], scale: float = 1.0) -> float:
    """The gradient of scale · Σ w²/2: scale · w."""
    loss = sum((p.float().square().sum() for p in given.values()), start=torch.zeros(())) * (scale / 2)
    loss.backward()
    optimizer.accumulate()
    return float(loss.detach())


def values(given: dict[str, nn.Parameter]) -> list[float]:
    return torch.cat([p.detach().float().flatten() for p in given.values()]).tolist()


# -- schedule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        # Two steps of warm-up at 1/3 and 2/3; then 8 steps from 1 to 0.2: at their middle (step 6) 0.6 on
        # both courses, a quarter in (step 4) 1 − 0.25·0.8 = 0.8 or 0.2 + 0.8·(1 + cos 45°)/2 = 0.8828427.
        ("constant", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 4: 1.0, 6: 1.0, 10: 1.0}),
        ("linear", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 4: 0.8, 6: 0.6, 10: 0.2, 99: 0.2}),
        ("cosine", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 4: 0.8828427, 6: 0.6, 10: 0.2, 99: 0.2}),
    ],
)
def test_the_learning_rate_takes_the_course_worked_out_by_hand(schedule: Any, factors: dict[int, float]):
    config = OptimizerConfig(lr=0.1, schedule=schedule, lr_warmup_steps=2, min_lr_ratio=0.2)
    found = {step: schedule_factor(config, step=step, total_steps=10) for step in factors}
    assert found == pytest.approx(factors, abs=1e-6)


def test_a_run_that_is_all_warm_up_has_a_schedule():
    config = OptimizerConfig(lr=0.1, schedule="linear", lr_warmup_steps=5)
    assert schedule_factor(config, step=5, total_steps=5) == 1.0


def test_every_group_follows_the_schedule_at_its_own_rate():
    fast, slow = parameters(), parameters()
    optimizer = MasterOptimizer(
        [
            ParameterGroup(parameters={"a": fast["matrix"]}, lr=0.1),
            ParameterGroup(parameters={"b": slow["matrix"]}, lr=0.01),
        ],
        OptimizerConfig(lr=0.1, grad_clip=1e9, lr_warmup_steps=1),
        master_dtype=torch.float32,
        total_steps=10,
        collective=LocalCollective(),
        max_nonfinite_steps=0,
    )
    before = fast["matrix"].detach().clone()
    result = optimizer.step(backward(optimizer, {"a": fast["matrix"], "b": slow["matrix"]}))
    # Adam's first step is the rate along the gradient's sign; half the rate in the only step of warm-up.
    assert result.lr == pytest.approx(0.05)
    assert torch.allclose(before - fast["matrix"], 0.05 * before.sign(), atol=1e-5)
    assert torch.allclose(before - slow["matrix"], 0.005 * before.sign(), atol=1e-5)


# -- one step ----------------------------------------------------------------------------------------


def test_the_first_step_and_the_norm_are_those_worked_out_by_hand():
    given = parameters()
    optimizer = optimizer_of(given)
    result = optimizer.step(backward(optimizer, given))
    # ‖g‖² = 1 + 4 + 0.25 + 16 + 9 + 1 = 31.25; Adam moves every weight by 0.1 towards 0.
    assert result.grad_norm == result.grad_norm_before_clip == pytest.approx(math.sqrt(31.25), rel=1e-6)
    assert values(given) == pytest.approx([0.9, -1.9, 0.4, 3.9, 2.9, -0.9], abs=1e-6)
    assert optimizer.steps_taken == 1


def test_passes_add_up_to_the_whole():
    whole, split = parameters(), parameters()
    results = []
    for given, scales in ((whole, [1.0]), (split, [0.25, 0.5, 0.25])):
        optimizer = optimizer_of(given, eps=1.0)
        loss = sum(backward(optimizer, given, scale) for scale in scales)
        results.append(optimizer.step(loss))
    assert results[1].grad_norm == pytest.approx(results[0].grad_norm, rel=1e-6)
    assert values(split) == pytest.approx(values(whole), rel=1e-6)


def test_a_gradient_above_the_limit_is_scaled_down_to_it_and_one_below_is_not():
    given = parameters()
    optimizer = optimizer_of(given, grad_clip=0.5)
    result = optimizer.step(backward(optimizer, given))
    assert result.grad_norm_before_clip == pytest.approx(math.sqrt(31.25), rel=1e-6)
    assert result.grad_norm == pytest.approx(0.5, rel=1e-5)
    small = optimizer.step(backward(optimizer, given, 0.01))
    assert small.grad_norm == small.grad_norm_before_clip < 0.5


def test_weight_decay_is_for_matrices_only():
    given = parameters()
    optimizer = optimizer_of(given, weight_decay=0.5)
    optimizer.step(0.0)
    # No gradient at all: matrices shrink by lr · decay = 5 %, biases stand.
    assert values(given) == pytest.approx([0.95, -1.9, 0.475, 3.8, 3.0, -1.0])


def test_parameters_without_gradient_are_left_out():
    given = parameters()
    given["bias"].requires_grad_(False)
    optimizer = optimizer_of(given)
    assert set(optimizer.state()[0]) == {"master/matrix"}


# -- master weights ----------------------------------------------------------------------------------


def test_steps_too_small_for_bfloat16_add_up_in_the_master_weights():
    given = parameters(torch.bfloat16)
    optimizer = optimizer_of(given, group_lr=1e-4)
    for _ in range(50):
        optimizer.step(backward(optimizer, given))
    # 50 · 1e-4 = 0.005; bfloat16 has 0.9961 and 0.9922 below 1, and 1e-4 alone is lost in it.
    masters = optimizer.state()[0]["master/matrix"]
    assert masters.dtype == torch.float32
    assert float(masters[0, 0]) == pytest.approx(0.995, abs=1e-4)
    assert given["matrix"][0, 0].item() == 0.99609375
    assert given["matrix"].dtype == torch.bfloat16


def test_gradients_of_bfloat16_passes_add_up_in_float32():
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = optimizer_of({"w": parameter}, eps=1e-3)
    for scale in [256.0] + [1.0] * 16:
        backward(optimizer, {"w": parameter}, scale)
    # In bfloat16, 256 + 1 is 256 again.
    assert optimizer.step(0.0).grad_norm == pytest.approx(272.0)


def test_trained_weights_have_master_copies_and_other_tensors_none():
    given = parameters(torch.bfloat16)
    optimizer = optimizer_of(given, group_lr=1e-4)
    optimizer.step(backward(optimizer, given))
    found = optimizer.masters()
    assert found.keys() == {parameter.data_ptr() for parameter in given.values()}
    master = found[given["matrix"].data_ptr()]
    assert master.dtype == torch.float32
    assert torch.equal(master, optimizer.state()[0]["master/matrix"])


def test_an_optimiser_takes_over_anothers_masters_and_nothing_else():
    given = parameters(torch.bfloat16)
    first = optimizer_of(given, group_lr=1e-4)
    first.step(backward(first, given))
    second = optimizer_of(given)
    second.take_masters(first)
    tensors, plain = second.state()
    assert torch.equal(tensors["master/matrix"], first.state()[0]["master/matrix"])
    assert plain["steps_taken"] == 0
    assert not any(name.startswith("exp_avg") for name in tensors)


# -- gradients that are not finite -------------------------------------------------------------------


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_that_is_not_finite_skips_the_step_and_leaves_the_weights(
    scale: float, dtype: torch.dtype
):
    given = parameters(dtype)
    optimizer = optimizer_of(given)
    optimizer.step(backward(optimizer, given))
    before, state = values(given), optimizer.state()
    saved = {name: tensor.clone() for name, tensor in state[0].items()}
    backward(optimizer, given)
    result = optimizer.step(backward(optimizer, given, scale))
    assert result.skipped
    assert values(given) == before
    assert optimizer.steps_taken == 1
    after = optimizer.state()[0]
    assert all(torch.equal(after[name], tensor) for name, tensor in saved.items())
    # Nothing of the bad gradient is left for the next step.
    assert not optimizer.step(backward(optimizer, given)).skipped


@pytest.mark.parametrize("loss", [float("nan"), float("-inf")])
def test_a_loss_that_is_not_finite_skips_the_step_whatever_the_gradient(loss: float):
    given = parameters()
    optimizer = optimizer_of(given)
    before = values(given)
    backward(optimizer, given)
    assert optimizer.step(loss).skipped
    assert values(given) == before


def test_more_skipped_steps_in_a_row_than_allowed_raise():
    given = parameters()
    optimizer = optimizer_of(given, max_nonfinite=2)
    before = values(given)
    for _ in range(2):
        assert optimizer.step(float("nan")).skipped
    with pytest.raises(
        TrainingError, match=r"3 optimiser steps in a row.*loss \(nan\).*max_nonfinite_steps = 2"
    ):
        optimizer.step(float("nan"))
    assert values(given) == before


def test_a_good_step_ends_the_row():
    given = parameters()
    optimizer = optimizer_of(given, max_nonfinite=1)
    for _ in range(3):
        assert optimizer.step(float("nan")).skipped
        assert not optimizer.step(backward(optimizer, given)).skipped


# -- state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_restored_optimiser_goes_on_bit_for_bit(dtype: torch.dtype, steps: int):
    given = parameters(dtype)
    first = optimizer_of(given, schedule="linear", weight_decay=0.1)
    for _ in range(steps):
        first.step(backward(first, given))
    tensors, plain = first.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    fresh = {name: nn.Parameter(torch.zeros_like(p)) for name, p in given.items()}
    second = optimizer_of(fresh, schedule="linear", weight_decay=0.1)
    second.load_state(saved, plain)
    assert values(fresh) == values(given)
    for _ in range(3):
        results = [o.step(backward(o, g)) for o, g in ((first, given), (second, fresh))]
        assert results[0] == results[1]
    assert values(fresh) == values(given)


def test_the_count_of_skipped_steps_survives_a_restart():
    given = parameters()
    first = optimizer_of(given, max_nonfinite=1)
    first.step(float("nan"))
    second = optimizer_of(parameters(), max_nonfinite=1)
    second.load_state(*first.state())
    with pytest.raises(TrainingError):
        second.step(float("nan"))


def test_the_state_of_other_parameters_is_refused_by_name():
    tensors, plain = optimizer_of(parameters()).state()
    other = optimizer_of({**parameters(), "extra": nn.Parameter(torch.zeros(2))})
    with pytest.raises(TrainingError, match="master/extra is on one side only"):
        other.load_state(tensors, plain)
