"""The critic's poolings at work: packed and padded, moving with the training, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from gad_ray.config.models import LoraConfig
from gad_ray.errors import ModelError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.critic_export import load_critic
from tests.unit.builders import assert_gradients_close, gradients_of
from tests.unit.learners.variants import CRITIC_LOSSES, POOLINGS, all_pairs, batch_of, spread_critic


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4.0)])
def test_packed_pairs_score_as_padded_ones_and_as_those_alone(
    tied_model: Path, name: str, lora: LoraConfig | None
):
    padded, packed = (
        spread_critic(tied_model, model={"lora": lora}, pooling=POOLINGS[name], packing=packing)
        for packing in (False, True)
    )
    for learner in (padded, packed):
        learner.model.updates = 3
    pairs = all_pairs()
    wanted = padded.score(pairs)
    assert len(set(wanted.tolist())) > 10
    np.testing.assert_allclose(packed.score(pairs), wanted, atol=1e-5, rtol=0)
    alone = [float(packed.score([pair])[0]) for pair in pairs]
    np.testing.assert_allclose(alone, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packing_does_not_change_the_gradient(tied_model: Path, chat: ChatFormat, checkpointing: bool):
    batch = batch_of(chat)
    found: list[dict[str, Tensor]] = []
    for packing in (False, True):
        learner = spread_critic(
            tied_model,
            model={"gradient_checkpointing": checkpointing},
            packing=packing,
            loss=CRITIC_LOSSES["sharp"],
            micro_batch_tokens=250,
        )
        found.append(
            gradients_of(
                learner, lambda learner=learner: learner.score_and_update(batch.prompts, batch.rollouts)
            )
        )
    assert_gradients_close(found[1], found[0])


def test_a_blend_moves_with_the_updates_and_is_exported_as_it_stands(
    tied_model: Path, chat: ChatFormat, tmp_path: Path
):
    learner = spread_critic(tied_model, pooling=POOLINGS["blend"])
    prints = [learner.fingerprint()]
    for step in (1, 2):
        batch = batch_of(chat, step=step)
        learner.score_and_update(batch.prompts, batch.rollouts)
        prints.append(learner.fingerprint())
    assert len({p.pooling for p in prints}) == 3
    # Two of four steps: half of the mean and half of the last.
    scores = learner.score(all_pairs())
    parts = []
    for name in ("mean", "last"):
        learner.model.pooling = POOLINGS[name]
        parts.append(learner.score(all_pairs()))
    learner.model.pooling = POOLINGS["blend"]
    np.testing.assert_allclose(scores, 0.5 * parts[0] + 0.5 * parts[1], atol=1e-6, rtol=0)

    learner.export(tmp_path / "critic")
    loaded = load_critic(tmp_path / "critic")
    assert loaded.fingerprint() == prints[-1]
    assert loaded.score(all_pairs(), micro_batch_tokens=16384).tolist() == scores.tolist()
    meta = tmp_path / "critic" / "critic.json"
    meta.write_text(meta.read_text().replace('"updates": 2', '"updates": 3'))
    with pytest.raises(ModelError, match="pooling"):
        load_critic(tmp_path / "critic")


@pytest.mark.parametrize("name", ["last", "mix"])
def test_an_exported_critic_pools_as_the_learner_does(
    tied_model: Path, chat: ChatFormat, tmp_path: Path, name: str
):
    learner, batch = spread_critic(tied_model, pooling=POOLINGS[name]), batch_of(chat)
    learner.score_and_update(batch.prompts, batch.rollouts)
    learner.export(tmp_path / "critic")
    loaded = load_critic(tmp_path / "critic")
    assert loaded.score(all_pairs(), micro_batch_tokens=16384).tolist() == learner.score(all_pairs()).tolist()


def test_a_mixed_score_is_made_with_the_weights_of_the_configuration(tied_model: Path):
    mixed, last = (spread_critic(tied_model, pooling=POOLINGS[name]) for name in ("mix", "last"))
    lengths = [len(row) - row.start for row in map(last.model.encoder.encode, all_pairs())]
    wanted = last.score(all_pairs()) * (0.4 + 0.9 / np.asarray(lengths, dtype=np.float32))
    np.testing.assert_allclose(mixed.score(all_pairs()), wanted, rtol=1e-5)
