"""Packed layers give the numbers of plain ones, hold their weights to the bit, and are left out where they do not work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gad_ray.config.models import LoraConfig, ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.models import onednn_linear as module
from gad_ray.models.critic import CriticModel
from gad_ray.models.onednn_linear import PackedLinear, pack_linears
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, pair

PAIRS = [pair(p, r) for p, t, s in zip(PROMPTS, TEACHER, STUDENT, strict=True) for r in (t, *s)]

OPS: Any = torch.ops.mkldnn


@pytest.fixture(autouse=True)
def tried_anew() -> Iterator[None]:
    module._can_pack.cache_clear()
    yield
    module._can_pack.cache_clear()


@pytest.fixture(params=["float32", "bfloat16"])
def critic(request: pytest.FixtureRequest, tied_model: Path) -> CriticModel:
    if not module._can_pack(getattr(torch, request.param)):
        pytest.skip(f"this machine's CPU or PyTorch cannot pack {request.param} layers")
    return build(tied_model, compute=request.param)


def build(directory: Path, **model: Any) -> CriticModel:
    config = ModelConfig(model=str(directory), **model)
    return CriticModel.build(config, pooling=MeanPooling(), max_tokens=512, seed=0).eval()


def scores(critic: CriticModel) -> np.ndarray:
    return critic.score(PAIRS, micro_batch_tokens=400)


def test_a_packed_critic_scores_as_before(critic: CriticModel):
    before = scores(critic)
    critic.pack()
    kinds = {type(part) for part in critic.backbone.modules()}
    assert PackedLinear in kinds
    assert nn.Linear not in kinds
    tolerance = 1e-5 if critic.dtype == "float32" else 0.02
    np.testing.assert_allclose(scores(critic), before, atol=tolerance)
    assert np.ptp(before) > 2 * tolerance, "the texts' scores differ by more than what is allowed"


def test_weights_and_fingerprint_are_the_same_to_the_bit(critic: CriticModel):
    plain, fingerprint = critic.state(), critic.fingerprint()
    critic.pack()
    assert critic.fingerprint() == fingerprint
    assert plain.keys() == critic.state().keys()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in critic.state().items())


def test_a_bias_is_kept():
    plain = nn.Sequential(nn.Linear(8, 5))
    given = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = plain(given)
        assert pack_linears(plain) == 1
        torch.testing.assert_close(plain(given), wanted)
    assert list(plain.state_dict()) == ["0.bias", "0.weight"]


def test_a_critic_with_adapters_of_its_own_is_left_alone(tied_model: Path):
    critic = build(tied_model, compute="float32", lora=LoraConfig(rank=2, alpha=4))
    before = scores(critic)
    critic.pack()
    np.testing.assert_array_equal(scores(critic), before)


def lacking(*_: Any) -> Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")


def wrong(*arguments: Any) -> Tensor:
    return OPS._linear_pointwise(*arguments) * 1.5


@pytest.mark.parametrize(
    ("reorder", "product", "told"),
    [
        (lacking, OPS._linear_pointwise, "are not packed"),
        (OPS._reorder_linear_weight, wrong, "something else"),
    ],
    ids=["lacking", "wrong"],
)
def test_where_the_operations_lack_or_err_nothing_is_packed_and_the_log_says_so(
    reorder: Callable[..., Tensor],
    product: Callable[..., Tensor],
    told: str,
    tied_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    critic = build(tied_model, compute="float32")
    before = scores(critic)
    monkeypatch.setattr(
        module, "_OPS", SimpleNamespace(_reorder_linear_weight=reorder, _linear_pointwise=product)
    )
    with caplog.at_level("INFO", logger="gad_ray"):  # a run in this process may have set it
        assert pack_linears(critic.backbone) == 0
    assert told in caplog.text
    np.testing.assert_array_equal(scores(critic), before)
