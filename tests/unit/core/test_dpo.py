"""The preference loss: literals by hand, a float64 reference written on its own, extremes and splits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.core.preference_loss import DpoStats, dpo_loss

Array = NDArray[np.float64]


def loss_of(
    chosen: list[float], rejected: list[float], *, beta: float = 0.1, **settings: float
) -> tuple[Tensor, DpoStats, Tensor, Tensor]:
    """Loss, figures, and both gradients, with a reference that gives −10 nats to everything."""
    c, r = (torch.tensor(side, requires_grad=True) for side in (chosen, rejected))
    reference = torch.full((len(chosen),), -10.0)
    loss, stats = dpo_loss(
        c,
        rejected=r,
        reference_chosen=reference,
        reference_rejected=reference,
        beta=beta,
        **settings,  # type: ignore[arg-type]
    )
    loss.backward()
    assert c.grad is not None
    assert r.grad is not None
    return loss.detach(), stats, c.grad, r.grad


def test_the_loss_and_its_gradient_are_those_worked_out_by_hand():
    # Rewards 0.5·(4, −2) and 0.5·(0, 2): margins 2 and −2.
    loss, stats, to_chosen, to_rejected = loss_of([-6.0, -12.0], [-10.0, -8.0], beta=0.5)
    low, high = math.log1p(math.exp(-2.0)), math.log1p(math.exp(2.0))  # 0.126928, 2.126928
    assert float(loss) == pytest.approx((low + high) / 2)
    assert float(loss) == pytest.approx(1.126928, abs=1e-6)
    # −β·σ(−m)/2 pairs.
    assert to_chosen.tolist() == pytest.approx([-0.25 * 0.1192029, -0.25 * 0.8807971])
    assert to_rejected.tolist() == pytest.approx([0.25 * 0.1192029, 0.25 * 0.8807971])
    assert float(stats.chosen_reward) == pytest.approx((2.0 - 1.0) / 2)
    assert float(stats.rejected_reward) == pytest.approx((0.0 + 1.0) / 2)
    assert float(stats.margin) == pytest.approx(0.0)
    assert float(stats.accuracy) == pytest.approx(0.5)
    assert float(stats.loss) == float(loss)


def test_a_policy_that_is_its_reference_pays_log_2_and_is_right_half_the_time():
    loss, stats, _, _ = loss_of([-10.0] * 3, [-10.0] * 3)
    assert float(loss) == pytest.approx(math.log(2.0))
    assert float(stats.accuracy) == 0.5


def test_a_step_down_the_gradient_raises_the_chosen_and_lowers_the_rejected():
    _, _, to_chosen, to_rejected = loss_of([-9.0, -30.0], [-11.0, -5.0])
    assert (to_chosen < 0).all()
    assert (to_rejected > 0).all()


def test_label_smoothing_pulls_a_confident_margin_back():
    _, _, to_chosen, _ = loss_of([50.0], [-70.0], label_smoothing=0.1)
    # margin 12: (1 − ε)·σ(−12) is next to nothing, ε·σ(12) is not.
    assert float(to_chosen) == pytest.approx(0.1 * (0.1 / (1 + math.exp(-12.0)) - 0.9 / (1 + math.exp(12.0))))
    assert float(to_chosen) > 0


@pytest.mark.parametrize(("chosen", "rejected", "loss"), [(1e4, -1e4, 0.0), (-1e4, 1e4, 2000.0)])
def test_extreme_likelihoods_stay_finite_in_value_and_gradient(chosen: float, rejected: float, loss: float):
    found, _, to_chosen, to_rejected = loss_of([chosen], [rejected])
    assert float(found) == pytest.approx(loss, abs=1e-6)
    assert torch.isfinite(to_chosen).all()
    assert torch.isfinite(to_rejected).all()


def reference(sides: Array, beta: float, epsilon: float) -> tuple[float, Array, Array]:
    """Loss and the gradients to c and r, from the definition, in float64."""
    c, r, c_ref, r_ref = sides
    margin = beta * ((c - c_ref) - (r - r_ref))

    def log_sigmoid(x: Array) -> Array:
        return -np.logaddexp(0.0, -x)

    loss = -(1 - epsilon) * log_sigmoid(margin) - epsilon * log_sigmoid(-margin)
    # d/dm: −(1 − ε)·σ(−m) + ε·σ(m).
    slope = -(1 - epsilon) * np.exp(log_sigmoid(-margin)) + epsilon * np.exp(log_sigmoid(margin))
    to_c = beta * slope / len(c)
    return float(loss.mean()), to_c, -to_c


PAIRS = st.lists(
    st.tuples(*[st.one_of(st.floats(-200.0, 0.0, width=32), st.sampled_from([-1e4, 0.0]))] * 4),
    min_size=1,
    max_size=8,
)
BETAS = st.sampled_from([0.01, 0.1, 0.5, 2.0])
SMOOTHING = st.sampled_from([0.0, 0.1, 0.49])


@given(PAIRS, BETAS, SMOOTHING)
def test_value_and_gradient_are_those_of_an_independent_reference(
    pairs: list[tuple[float, ...]], beta: float, epsilon: float
):
    sides = np.asarray(pairs, dtype=np.float64).T
    wanted, to_c, to_r = reference(sides, beta, epsilon)
    c, r, c_ref, r_ref = (torch.from_numpy(side.astype(np.float32)) for side in sides)
    c.requires_grad_()
    r.requires_grad_()
    loss, _ = dpo_loss(
        c, rejected=r, reference_chosen=c_ref, reference_rejected=r_ref, beta=beta, label_smoothing=epsilon
    )
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert c.grad is not None
    assert r.grad is not None
    np.testing.assert_allclose(c.grad.numpy(), to_c, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(r.grad.numpy(), to_r, rtol=1e-3, atol=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole_in_value_figures_and_gradient():
    chosen, rejected = [-6.0, -12.0, -9.5], [-10.0, -8.0, -9.0]
    whole, stats, to_chosen, to_rejected = loss_of(chosen, rejected)
    parts = [loss_of(chosen[a:b], rejected[a:b], num_pairs=3) for a, b in ((0, 2), (2, 3))]
    assert float(sum(part[0] for part in parts)) == pytest.approx(float(whole))
    assert torch.cat([part[2] for part in parts]).tolist() == pytest.approx(to_chosen.tolist())
    assert torch.cat([part[3] for part in parts]).tolist() == pytest.approx(to_rejected.tolist())
    for name in ("loss", "chosen_reward", "rejected_reward", "margin", "accuracy"):
        total = sum(float(getattr(part[1], name)) for part in parts)
        assert total == pytest.approx(float(getattr(stats, name)))
