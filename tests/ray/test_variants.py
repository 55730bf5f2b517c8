"""The same game played by other arrangements of actors, stages and rewards."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.game import Game, Outcome

SAME_IN_EVERY_ARRANGEMENT = {
    "critic/d_acc": 0.0,
    "critic/d_loss": 1e-4,
    "critic/score_diff": 1e-4,
    "critic/grad_norm": 1e-3,
    "critic/rewards/mean": 1e-4,
    "actor/pg_loss": 1e-4,
    "actor/kl_loss": 1e-4,
    "actor/entropy": 1e-4,
    "actor/grad_norm": 1e-3,
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
