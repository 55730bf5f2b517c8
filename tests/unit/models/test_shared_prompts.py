"""A prompt that rows share is computed once, and values and gradients are those of rows that are padded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gad_ray.config.models import ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import TokenRow
from gad_ray.models.policy import PolicyModel, SequenceRow

DRAW = np.random.default_rng(0)


def drawn(prompt: int, *answers: int) -> list[tuple[np.ndarray, int]]:
    start = DRAW.integers(3, 384, prompt)
    return [(np.concatenate([start, DRAW.integers(3, 384, n)]).astype(np.int32), prompt) for n in answers]


# A long answer under a long prompt, short ones, a lone row, an answer of one token.
ROWS = [*drawn(40, 5, 90, 1), *drawn(7, 12), *drawn(3, 4, 4), *drawn(120, 200, 30)]


def gradients(model: nn.Module) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def config(directory: Path, *, checkpointing: bool) -> ModelConfig:
    return ModelConfig(model=str(directory), compute="float32", gradient_checkpointing=checkpointing)


def policy(directory: Path, packing: bool, checkpointing: bool) -> tuple[nn.Module, Callable[[], Tensor]]:
    model = PolicyModel.build(config(directory, checkpointing=checkpointing), packing=packing)
    rows = [SequenceRow(ids=ids, start=start) for ids, start in ROWS]
    return model, lambda: model.token_logprobs(rows).logprobs


def critic(directory: Path, packing: bool, checkpointing: bool) -> tuple[nn.Module, Callable[[], Tensor]]:
    model = CriticModel.build(
        config(directory, checkpointing=checkpointing),
        pooling=MeanPooling(),
        max_tokens=512,
        seed=0,
        packing=packing,
    )
    return model, lambda: model.scores([TokenRow(ids=ids, start=start) for ids, start in ROWS])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("make", [policy, critic])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_values_and_gradients_are_those_of_padded_rows(
    make: Callable[..., tuple[nn.Module, Callable[[], Tensor]]],
    dtype: torch.dtype,
    checkpointing: bool,
    tied_model: Path,
) -> None:
    found: list[tuple[Tensor, Tensor]] = []
    for packing in (True, False):
        model, values = make(tied_model, packing, checkpointing)
        model.to(dtype)
        if isinstance(model, CriticModel):
            model.head.float()  # it computes in float32 whatever the model does
        if checkpointing:
            model.train()
        out = values()
        assert cast("Any", model).packs is packing
        # Every row counts with another weight.
        weights = torch.arange(1.0, len(ROWS) + 1)
        (out if out.ndim == 1 else out.sum(-1)).mul(weights).sum().backward()
        found.append((out.detach(), gradients(model)))
    (packed, gradient), (padded, wanted) = found
    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)
    assert float((gradient - wanted).norm() / wanted.norm()) < (1e-6 if dtype is torch.float64 else 1e-5)


def test_only_what_must_be_computed_is(tied_model: Path) -> None:
    tokens: dict[bool, int] = {}
    for packing in (True, False):
        model, values = policy(tied_model, packing, checkpointing=False)
        assert isinstance(model, PolicyModel)
        assert model.packs is packing  # it is tried before what is counted
        seen: list[int] = []
        layer: Any = model.decoder
        layer.layers[0].mlp.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0].shape[:-1].numel())
        )
        values()
        tokens[packing] = sum(seen)
    assert tokens[True] == (40 + 96) + 19 + (3 + 8) + (120 + 230)
    assert tokens[False] == len(ROWS) * 320
