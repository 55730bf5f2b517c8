"""A game whose policy has adapters: these alone go to the rollout worker, which has the rest."""

from __future__ import annotations

from tests.game import Game


def test_a_sync_brings_the_adapters_and_the_probe_agrees(game: Game) -> None:
    played = game.play(
        "adapters", "policy.model.lora={rank: 2, alpha: 8.0, target_modules: [q_proj, v_proj]}"
    )
    assert played.code == 0, played.err
    synced = [row for row in played.metrics if "sync/bytes" in row]
    assert synced
    # Two layers 32 wide, with keys and values half as wide; A and B of rank 2 in float32.
    adapters = 2 * (2 * (32 + 32) + 2 * (32 + 16))
    assert {row["sync/bytes"] for row in synced} == {4 * adapters}
    assert max(row["sync/probe_gap"] for row in synced) < 1e-3
