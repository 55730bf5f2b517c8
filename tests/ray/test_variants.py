"""The same game played by other arrangements of actors, stages and rewards."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.game import Game, Outcome

NO_RATE = 1e-30
"""A learning rate at which no float32 weight moves."""

SAME_IN_EVERY_ARRANGEMENT = {
    "critic/d_acc": 0.0,
    "critic/d_loss": 1e-5,
    "critic/score_diff": 1e-5,
    "critic/grad_norm": 1e-5,
    "critic/rewards/mean": 1e-5,
    "actor/pg_loss": 1e-5,
    "actor/kl_loss": 1e-5,
    "actor/entropy": 1e-5,
    "actor/grad_norm": 1e-5,
    "response_length/mean": 0.0,
}


@pytest.fixture(scope="module")
def shared_out(game: Game) -> Outcome:
    """Two rollout workers, and two ranks of each model."""
    return game.play(
        "ranks",
        "rollout.num_workers=2",
        "critic.group.num_ranks=2",
        "policy.group.num_ranks=2",
        "stages.adversarial.steps=3",
    )


@pytest.fixture(scope="module")
def ahead(game: Game) -> Outcome:
    """Rollouts a step ahead, both updates at once, a warm start by cross-entropy, and a format reward."""
    return game.play(
        "ahead",
        "max_staleness=1",
        "overlap=true",
        "stages.warmup.policy=cross_entropy",
        "stages.warmup.critic_only_steps=2",
        "stages.adversarial.steps=4",
        "reward.format=[{name: no_repetition, ngram: 1, weight: 0.5}]",
        "policy.mini_batch_prompts=2",
    )


@pytest.fixture(scope="module")
def standing_still(game: Game) -> Outcome:
    """A policy with dropout in its configuration and a rate at which it does not move, in many optimiser steps."""
    config = game.policy / "config.json"
    original = config.read_text(encoding="utf-8")
    assert '"attention_dropout": 0.0' in original
    config.write_text(
        original.replace('"attention_dropout": 0.0', '"attention_dropout": 0.5'), encoding="utf-8"
    )
    try:
        return game.play(
            "still",
            f"policy.optimizer.lr={NO_RATE}",
            "policy.mini_batch_prompts=2",
            "policy.epochs_per_step=2",
            "policy.micro_batch_tokens=200",
            "policy.advantage={name: reinforce_pp}",
            "policy.loss={name: cispo, aggregation: sequence_mean}",
            "critic.replay={size: 20, ratio: 0.5}",
            "critic.loss={name: cross_entropy, temperature: {name: adaptive, preset: smooth}}",
            "critic.pooling={name: blend, blend_start: 0, blend_end: 3}",
            "stages.warmup.steps=1",
            "stages.adversarial.steps=2",
            "data.heldout_prompts=0",
            "checkpoint.every=0",
        )
    finally:
        config.write_text(original, encoding="utf-8")


def test_a_later_pass_finds_the_log_probabilities_of_the_first_to_the_bit(
    standing_still: Outcome, ahead: Outcome
) -> None:
    """Ratios of later mini-batches and epochs are measured between two passes, where those of a first are not."""
    assert standing_still.code == 0, standing_still.err
    game = [row for row in standing_still.metrics if row["stage"] == "adversarial"]
    assert [row["actor/ratio_gap_max"] for row in game] == [0.0, 0.0]
    assert all(row["actor/grad_norm"] > 1e-3 for row in game)
    assert max(row["rollout/mismatch_abs"] for row in game) < 1e-3
    # The same metric in a run whose policy moves.
    assert all(row["actor/ratio_gap_max"] > 0.0 for row in ahead.metrics if row["stage"] == "adversarial")


def test_variants_chosen_on_the_command_line_are_those_that_are_played(standing_still: Outcome) -> None:
    rows = standing_still.metrics
    assert [row["critic/replay_size"] for row in rows] == [12.0, 20.0, 20.0]
    assert [row.get("critic/replay_age") for row in rows][:2] == [None, 1.0]
    assert all(1.0 <= row["critic/temperature"] <= 7.0 for row in rows)
    assert all("actor/clipfrac" in row for row in rows[1:])


def test_two_workers_and_two_ranks_play_the_game_of_one(shared_out: Outcome, whole_run: Outcome) -> None:
    assert shared_out.code == 0, shared_out.err
    assert len(shared_out.metrics) == 7
    for row, alone in zip(shared_out.metrics, whole_run.metrics, strict=False):
        for name, tolerance in SAME_IN_EVERY_ARRANGEMENT.items():
            assert (name in row) == (name in alone)
            if name in row:
                assert row[name] == pytest.approx(alone[name], abs=tolerance), f"step {row['step']}: {name}"


def test_two_workers_draw_the_responses_of_one(shared_out: Outcome, whole_run: Outcome) -> None:
    drawn, alone = (
        sorted(
            (record["example_id"], record["student_response"], record["student_score"])
            for record in pq.read_table(run.root / "records" / "step-000001.parquet").to_pylist()
        )
        for run in (shared_out, whole_run)
    )
    assert [record[:2] for record in drawn] == [record[:2] for record in alone]
    assert [record[2] for record in drawn] == pytest.approx([record[2] for record in alone], abs=1e-5)


def test_rollouts_ahead_are_as_old_as_allowed_and_no_older(ahead: Outcome) -> None:
    assert ahead.code == 0, ahead.err
    staleness = {row["step"]: row["rollout/staleness"] for row in ahead.metrics}
    assert max(staleness.values()) == 1.0
    assert staleness[8] == 1.0


def test_a_warm_start_leaves_the_policy_alone_for_the_critics_own_steps(ahead: Outcome) -> None:
    fitted = [row["step"] for row in ahead.metrics if "actor/ce_loss" in row]
    assert fitted == [3, 4]
    versions = [
        pq.read_table(ahead.root / "records" / f"step-{step:06d}.parquet").to_pylist()[0]["policy_version"]
        for step in range(1, 9)
    ]
    # A step ahead: step 4's were asked for before step 3's update.
    assert versions == [0, 0, 0, 0, 1, 2, 3, 4]


def test_a_format_reward_adds_to_the_discriminators(ahead: Outcome) -> None:
    for row in ahead.metrics:
        total = row["reward/discriminator_mean"] + row["format/reward_avg"]
        assert row["critic/rewards/mean"] == pytest.approx(total, abs=1e-6)


def test_a_second_mini_batch_sees_a_ratio(ahead: Outcome) -> None:
    game = [row for row in ahead.metrics if row["stage"] == "adversarial"]
    assert all(row["actor/ratio_gap_max"] > 0.0 for row in game)
