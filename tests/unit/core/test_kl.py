import pytest
import torch

from gad_ray.core.kl import k3_kl


def test_the_estimate_and_its_gradient_are_those_worked_out_by_hand():
    # δ = (0.5, −1): e^0.5 − 1.5 = 0.1487213 and e^−1 + 1 − 1 = 0.3678794; their sum over 4 tokens.
    logprobs = torch.tensor([[-2.0, -1.0, -9.0]], requires_grad=True)
    kl = k3_kl(
        logprobs,
        ref_logprobs=torch.tensor([[-1.5, -2.0, -1.0]]),
        mask=torch.tensor([[True, True, False]]),
        num_tokens=4,
    )
    kl.backward()
    assert float(kl) == pytest.approx(0.1291502, abs=1e-6)
    # ∂/∂log π = −(e^δ − 1)/4: −0.6487213/4 and 0.6321206/4.
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([-0.1621803, 0.1580301, 0.0], abs=1e-6)


def test_a_policy_that_is_its_reference_has_a_divergence_of_exactly_0_and_no_gradient():
    logprobs = torch.tensor([[-0.3, -700.0]], requires_grad=True)
    kl = k3_kl(
        logprobs, ref_logprobs=logprobs.detach(), mask=torch.ones(1, 2, dtype=torch.bool), num_tokens=2
    )
    kl.backward()
    assert float(kl) == 0.0
    assert logprobs.grad is not None
    assert logprobs.grad.abs().max() == 0.0


def test_it_is_never_negative():
    generator = torch.Generator().manual_seed(0)
    logprobs, ref = (-5 * torch.rand(1000, 1, generator=generator) for _ in range(2))
    mask = torch.ones(1, 1, dtype=torch.bool)
    estimates = [
        float(k3_kl(a[None], ref_logprobs=b[None], mask=mask, num_tokens=1))
        for a, b in zip(logprobs, ref, strict=True)
    ]
    assert min(estimates) >= 0.0


@pytest.mark.parametrize("junk", [1e4, float("nan"), float("-inf")])
def test_what_stands_outside_the_mask_changes_neither_value_nor_gradient(junk: float):
    mask = torch.tensor([[True, False]])
    gradients, values = [], []
    for outside in (0.0, junk):
        logprobs = torch.tensor([[-2.0, outside]], requires_grad=True)
        kl = k3_kl(logprobs, ref_logprobs=torch.tensor([[-1.5, -outside]]), mask=mask, num_tokens=1)
        kl.backward()
        values.append(float(kl))
        gradients.append(logprobs.grad)
    assert values[0] == values[1]
    assert torch.equal(gradients[0], gradients[1])


def test_parts_of_a_batch_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(1)
    logprobs, ref = (-5 * torch.rand(4, 3, generator=generator) for _ in range(2))
    mask = torch.rand(4, 3, generator=generator) > 0.3
    whole = k3_kl(logprobs, ref_logprobs=ref, mask=mask, num_tokens=9)
    parts = [
        float(k3_kl(logprobs[i : i + 2], ref_logprobs=ref[i : i + 2], mask=mask[i : i + 2], num_tokens=9))
        for i in (0, 2)
    ]
    assert sum(parts) == pytest.approx(float(whole), rel=1e-6)
