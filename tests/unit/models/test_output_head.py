"""A head in chunks is the head."""

from __future__ import annotations

import pytest
import torch

from gad_ray.models import output_head


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_a_head_in_chunks_gives_the_same_values_and_gradients_and_never_holds_all_logits(
    monkeypatch: pytest.MonkeyPatch, entropy_gradient: bool
) -> None:
    torch.manual_seed(0)
    words, weight = 50, torch.randn(50, 8, dtype=torch.float64)
    hidden, targets = torch.randn(23, 8, dtype=torch.float64), torch.arange(23)
    most: list[int] = []

    def computed(chunk_elements: int) -> tuple[torch.Tensor, ...]:
        monkeypatch.setitem(output_head._CHUNK_ELEMENTS, "cpu", chunk_elements)
        states, matrix = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        most.clear()

        def head(part: torch.Tensor) -> torch.Tensor:
            most.append(len(part))
            return part @ matrix.T

        chosen, entropy = output_head.head_logprobs(
            states, head, targets, words=words, temperature=0.7, entropy_gradient=entropy_gradient
        )
        loss = chosen.square().sum() + (entropy.sum() if entropy_gradient else 0.0)
        loss.backward()
        assert states.grad is not None
        assert matrix.grad is not None
        return chosen.detach(), entropy.detach(), states.grad, matrix.grad

    wanted = computed(10**9)
    assert most == [23]
    found = computed(5 * words)
    assert sorted(most) == sorted([5, 5, 5, 5, 3] * 2), "once forward, once more backward"
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
