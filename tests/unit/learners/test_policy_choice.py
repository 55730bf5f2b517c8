"""That a configuration is answered by the formula it names, with its own settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gad_ray.config.policy import KlConfig, RejectedImportance, TruncatedImportance
from gad_ray.core.policy_loss import (
    POLICY_LOSSES,
    CispoLoss,
    GspoLoss,
    LossBatch,
    PolicyLossConfig,
    PpoLoss,
    ReinforceLoss,
)
from gad_ray.learners.kl_penalty import KlPenalty
from gad_ray.learners.policy_loss import importance_weights
from tests.unit.core.policy_loss_reference import CASES, HIGH, LENGTH, LOW, Batch, pad, reference

# Ratios of e^-1.5, e^-0.1, 1, e^0.05, e^0.5 and e^2 under advantages of both signs: both bounds are met from both.
GAPS = np.asarray([-1.5, -0.1, 0.0, 0.05, 0.5, 2.0])
NEW = np.asarray([-1.0, -2.0, -0.5, -3.0, -0.25, -4.0])
BATCH = Batch(
    new=[NEW, NEW, NEW[:1], NEW[:2] + 0.1],
    old=[NEW - GAPS, NEW - GAPS, NEW[:1] - 0.9, NEW[:2] + 1.0],
    weights=[np.linspace(0.5, 2.0, 6), np.linspace(2.0, 0.5, 6), np.asarray([1.5]), np.asarray([0.0, 0.75])],
    advantages=[1.0, -2.0, 0.5, -1.0],
)


def config_of(name: str, aggregation: str) -> PolicyLossConfig:
    bounds = {"clip_low": LOW, "clip_high": HIGH}
    if name == "gspo":
        return GspoLoss(**bounds)
    how = {"aggregation": aggregation, "length_divisor": LENGTH if aggregation == "constant" else None}
    if name == "reinforce":
        return ReinforceLoss(**how)  # type: ignore[arg-type]
    return {"ppo": PpoLoss, "cispo": CispoLoss}[name](**bounds, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "aggregation"), CASES)
def test_a_loss_by_configuration_is_that_of_its_formula(name: str, aggregation: str):
    width = max(map(len, BATCH.new))
    new = pad(BATCH.new, 0.0, width).requires_grad_()
    mask = pad([np.ones(len(row)) for row in BATCH.new], 0.0, width).bool()
    batch = LossBatch(
        old_logprobs=pad(BATCH.old, 0.0, width),
        advantages=torch.tensor(BATCH.advantages, dtype=torch.float64),
        mask=mask,
        weights=pad(BATCH.weights, 0.0, width),
        num_sequences=len(BATCH.new),
        num_tokens=int(mask.sum()),
    )
    config = config_of(name, aggregation)
    loss, _ = POLICY_LOSSES.of(config)(new, batch, config)
    value, gradient = reference(name, aggregation, BATCH)
    assert float(loss.detach()) == pytest.approx(value, rel=1e-12)
    (found,) = torch.autograd.grad(loss, new)
    for row, keep, wanted in zip(found, mask, gradient, strict=True):
        np.testing.assert_allclose(row[keep].numpy(), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("config", "wanted"),
    # Ratios 4 and 0.25, whose geometric mean is 1, and 2 and 1.
    [
        (None, None),
        (TruncatedImportance(cap=3.0), [[3.0, 0.25], [2.0, 1.0]]),
        (RejectedImportance(cap=3.0), [[0.0, 0.25], [2.0, 1.0]]),
        (RejectedImportance(cap=1.1, unit="sequence"), [[1.0, 1.0], [0.0, 0.0]]),
    ],
)
def test_importance_weights_by_configuration_are_those_worked_out_by_hand(config, wanted):
    old = torch.log(torch.tensor([[4.0, 0.25], [2.0, 1.0]]))
    mask = torch.ones(2, 2, dtype=torch.bool)
    found = importance_weights(config, old, rollout_logprobs=torch.zeros(2, 2), mask=mask)
    assert (found is None) == (wanted is None)
    if found is not None:
        torch.testing.assert_close(found, torch.tensor(wanted))


@pytest.mark.parametrize(
    ("estimator", "tokens"), [("k1", [-1.0, 2.0]), ("k2", [0.5, 2.0]), ("k3", [np.e - 2, np.exp(-2) + 1])]
)
def test_a_divergence_by_configuration_is_a_mean_in_the_loss_and_a_sum_in_the_reward(estimator, tokens):
    penalty = KlPenalty(KlConfig(estimator=estimator, coefficient=0.1))
    # δ = 1 and −2, and a second response of δ = 1 alone.
    new, ref = torch.tensor([[-2.0, -1.0], [-2.0, 9.0]]), torch.tensor([[-1.0, -3.0], [-1.0, -9.0]])
    mask = torch.tensor([[True, True], [True, False]])
    mean = penalty.mean(new, ref, mask, num_tokens=3)
    assert float(mean) == pytest.approx((2 * tokens[0] + tokens[1]) / 3, rel=1e-6)
    assert penalty.sums(new, ref, mask).tolist() == pytest.approx(
        [tokens[0] + tokens[1], tokens[0]], rel=1e-6
    )
