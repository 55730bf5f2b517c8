from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gad_ray.core.importance import rejected_weights
from gad_ray.core.kl import adapted_coefficient, k1_kl, k2_kl, k3_kl
from gad_ray.core.logprobs import token_logprobs
from gad_ray.learners.policy_metrics import PolicySums

Estimator = Callable[..., Tensor]
ESTIMATORS: dict[str, tuple[Estimator, Callable[[float], float], Callable[[float], float]]] = {
    # The estimator, its value by δ = log π_ref − log π, and its derivative by log π.
    "k1": (k1_kl, lambda d: -d, lambda d: 1.0),
    "k2": (k2_kl, lambda d: d * d / 2, lambda d: -d),
    "k3": (k3_kl, lambda d: np.exp(d) - d - 1, lambda d: 1 - np.exp(d)),
}
EACH = pytest.mark.parametrize("name", ESTIMATORS)
ROWS = st.lists(
    st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0)), min_size=1, max_size=5), min_size=1, max_size=4
)


def padded(rows: list[list[tuple[float, float]]]) -> tuple[Tensor, Tensor, Tensor]:
    width = max(len(r) for r in rows) + 1
    both = torch.full((2, len(rows), width), 7.0, dtype=torch.float64)
    both[1] = -3.0
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        both[:, i, : len(row)] = torch.tensor(row, dtype=torch.float64).T
        mask[i, : len(row)] = True
    return both[0].clone().requires_grad_(), both[1].clone(), mask


@EACH
@settings(deadline=None)
@given(rows=ROWS)
def test_value_and_gradient_are_those_of_an_independent_computation(
    name: str, rows: list[list[tuple[float, float]]]
):
    estimate, value, slope = ESTIMATORS[name]
    new, ref, mask = padded(rows)
    num_tokens = sum(map(len, rows)) + 3
    kl = estimate(new, ref_logprobs=ref, mask=mask, num_tokens=num_tokens)
    deltas = [r - n for row in rows for n, r in row]
    assert float(kl.detach()) == pytest.approx(sum(map(value, deltas)) / num_tokens, rel=1e-9, abs=1e-9)
    (gradient,) = torch.autograd.grad(kl, new)
    assert not gradient[~mask].any()
    np.testing.assert_allclose(
        gradient[mask].numpy(), [slope(d) / num_tokens for d in deltas], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    ("delta", "value", "slope"),
    [
        (19.0, np.exp(19.0) - 20.0, 1.0 - np.exp(19.0)),
        (21.0, np.exp(20.0) - 21.0, 0.0),
        (89.0, np.exp(20.0) - 21.0, 0.0),
        (1e4, np.exp(20.0) - 21.0, 0.0),
        (-21.0, 20.0, 1.0),
        (-89.0, 88.0, 1.0),
        (-1e4, 9999.0, 1.0),
    ],
)
def test_k3_stays_finite_in_float32_however_far_apart_the_models_are(
    delta: float, value: float, slope: float
):
    """By δ = log π_ref − log π: bounded above 20, exact below it, where the gradient pulls the policy back."""
    new = torch.tensor([[-delta if delta > 0 else 0.0, -0.5]], requires_grad=True)
    ref = torch.tensor([[0.0 if delta > 0 else delta, -0.5]])
    kl = k3_kl(new, ref_logprobs=ref, mask=torch.ones(1, 2, dtype=torch.bool), num_tokens=1)
    (gradient,) = torch.autograd.grad(kl, new)
    assert float(kl.detach()) == pytest.approx(value, rel=1e-6)
    assert gradient[0].tolist() == pytest.approx([slope, 0.0], rel=1e-6)


@pytest.mark.parametrize("name", ["k1", "k2"])
@pytest.mark.parametrize("delta", [1e4, -1e4])
def test_the_others_need_no_bound(name: str, delta: float):
    estimate, value, slope = ESTIMATORS[name]
    new = torch.zeros(1, 1, requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    kl = estimate(new, ref_logprobs=torch.tensor([[delta]]), mask=mask, num_tokens=1)
    (gradient,) = torch.autograd.grad(kl, new)
    assert float(kl.detach()) == pytest.approx(value(delta))
    assert float(gradient) == pytest.approx(slope(delta))


@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_the_mismatch_of_rollout_and_trainer_is_finite_however_large(gap: float):
    sums = PolicySums()
    sampled = torch.tensor([[-1.0, -1.0]])
    mask = torch.tensor([[True, False]])
    sums.add_mismatch(sampled + gap, sampled, mask, num_tokens=1)
    assert sums.mismatch_abs == pytest.approx(1e4)
    assert sums.mismatch_kl == pytest.approx(np.exp(20.0) - 21.0 if gap > 0 else 9999.0)


@pytest.mark.parametrize(("name", "wanted"), [("k1", -1.0), ("k2", 0.5), ("k3", np.e - 2.0)])
def test_an_estimate_is_that_worked_out_by_hand(name: str, wanted: float):
    found = ESTIMATORS[name][0](
        torch.tensor([[-2.0, -9.0]]),
        ref_logprobs=torch.tensor([[-1.0, 0.0]]),
        mask=torch.tensor([[True, False]]),
        num_tokens=1,
    )
    assert float(found) == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_what_the_mean_gradient_over_the_policys_own_samples_is(name: str):
    """k1: nothing; k2: that of KL(π‖π_ref); k3: that of KL(π_ref‖π). Exact sums over a small vocabulary."""
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([-0.5, 0.4, 0.2, 0.9], dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    mean = torch.zeros(4, dtype=torch.float64)
    for token in range(4):
        kl = ESTIMATORS[name][0](
            logp[None, token : token + 1],
            ref_logprobs=ref[None, token : token + 1],
            mask=torch.tensor([[True]]),
            num_tokens=1,
        )
        (gradient,) = torch.autograd.grad(kl, logits, retain_graph=True)
        mean += logp[token].detach().exp() * gradient
    p, q = logp.exp(), ref.exp()
    divergence = {
        "k1": (logits * 0.0).sum(),
        "k2": (p * (logp - ref)).sum(),
        "k3": (q * (ref - logp)).sum(),
    }[name]
    (wanted,) = torch.autograd.grad(divergence, logits)
    torch.testing.assert_close(mean, wanted)


def test_the_coefficient_rises_above_the_target_and_falls_below_it():
    def after(kl: float, **changed: int) -> float:
        sizes = {"num_responses": 100, "horizon": 1000, **changed}
        return adapted_coefficient(0.5, kl=kl, target=0.1, **sizes)

    assert after(0.1) == 0.5
    assert after(0.11) == pytest.approx(0.5 * (1 + 0.1 * 0.1))
    assert after(9.0) == pytest.approx(0.5 * (1 + 0.2 * 0.1))
    assert after(0.0) == pytest.approx(0.5 * (1 - 0.2 * 0.1))
    assert after(-9.0, num_responses=10**6) == pytest.approx(0.4)
    assert after(float("nan")) == 0.5


@pytest.mark.parametrize("by_sequence", [False, True])
@settings(deadline=None)
@given(rows=ROWS)
def test_weights_above_the_cap_are_rejected(by_sequence: bool, rows: list[list[tuple[float, float]]]):
    old, rollout, mask = padded(rows)
    found = rejected_weights(old, rollout_logprobs=rollout, mask=mask, cap=1.5, by_sequence=by_sequence)
    assert not found.requires_grad
    assert bool((found[~mask] == 1.0).all())
    for i, row in enumerate(rows):
        ratios = np.exp([o - r for o, r in row])
        if by_sequence:
            ratios = np.full(len(row), np.exp(np.mean([o - r for o, r in row])))
        wanted = np.where(ratios <= 1.5, ratios, 0.0)
        near = np.abs(ratios - 1.5) < 1e-9  # on the cap itself, either rounding will do
        np.testing.assert_allclose(found[i, : len(row)].numpy()[~near], wanted[~near], rtol=1e-9)


def test_a_rejected_sequence_is_rejected_whole_and_a_rejected_token_alone():
    old = torch.log(torch.tensor([[4.0, 1.0], [1.0, 0.25]]))
    rollout = torch.zeros(2, 2)
    arguments = {"rollout_logprobs": rollout, "mask": torch.ones(2, 2, dtype=torch.bool), "cap": 1.9}
    tokens = rejected_weights(old, **arguments, by_sequence=False)
    assert tokens.tolist() == [[0.0, 1.0], [1.0, 0.25]]
    # Geometric means 2 and 0.5.
    sequences = rejected_weights(old, **arguments, by_sequence=True)
    assert sequences.flatten().tolist() == pytest.approx([0.0, 0.0, 0.5, 0.5])


def test_the_entropy_carries_its_gradient_only_when_asked_for():
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = logits.float().requires_grad_()
    targets = torch.tensor([0, 4, 2])
    _, without = token_logprobs(logits, targets)
    assert not without.requires_grad
    _, entropy = token_logprobs(logits, targets, entropy_gradient=True)
    (gradient,) = torch.autograd.grad(entropy.sum(), logits)
    p = logits.detach().double().softmax(-1)
    h = -(p * p.log()).sum(-1, keepdim=True)
    torch.testing.assert_close(entropy.detach().double(), h.squeeze(-1), rtol=1e-6, atol=1e-6)
    # ∂H/∂z_j = −p_j (log p_j + H)
    torch.testing.assert_close(gradient.double(), -p * (p.log() + h), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(without, entropy.detach(), rtol=0, atol=0)
