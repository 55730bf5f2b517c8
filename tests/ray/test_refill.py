"""Groups without spread refilled under a curriculum."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
import pytest

from gad_ray.checkpoint.store import CheckpointStore
from tests.game import REFILLED, Game, Outcome

WARMUP = 4
PROMPTS_PER_STEP, RESPONSES = 4, 3


def _records(outcome: Outcome, step: int) -> list[dict[str, Any]]:
    return pq.read_table(outcome.root / "records" / f"step-{step:06d}.parquet").to_pylist()


def test_groups_without_spread_are_refilled_in_the_game_alone(refilled: Outcome) -> None:
    assert refilled.code == 0, refilled.err
    warmup, game = refilled.metrics[:WARMUP], refilled.metrics[WARMUP:]
    assert warmup[0]["actor/zero_spread_groups"] > 0.0
    assert not any(name.startswith("rollout/refill") for row in warmup for name in row)
    assert {row["rollout/refill_rounds"] for row in game} >= {0.0, 1.0}


def test_a_step_scores_and_records_the_prompts_it_drew_and_trains_on_no_more_than_it_takes(
    refilled: Outcome,
) -> None:
    for row in refilled.metrics[WARMUP:]:
        records = _records(refilled, row["step"])
        num_groups = PROMPTS_PER_STEP + row["rollout/refilled_groups"]
        assert len({record["example_id"] for record in records}) == num_groups
        assert len(records) == RESPONSES * num_groups
        dropped = row["actor/dropped_samples"]
        assert dropped == pytest.approx(len(records) * row["actor/zero_spread_groups"])
        trained = len(records) - dropped - row["actor/surplus_samples"]
        assert trained == RESPONSES * (PROMPTS_PER_STEP - row["rollout/unfilled_groups"])


def test_the_curriculum_shortens_the_epochs(refilled: Outcome) -> None:
    # 0.7 of 34 prompts; a step of the warm-up takes 4.
    assert {row["data/admitted_prompts"] for row in refilled.metrics} == {24.0}
    assert refilled.metrics[0]["data/epoch"] == pytest.approx(4 / 24)
    assert refilled.metrics[-1]["data/epoch"] > 2.0


def test_what_is_known_of_the_prompts_is_in_the_checkpoint(refilled: Outcome) -> None:
    latest = CheckpointStore(refilled.root / "checkpoints", keep=2).latest()
    assert latest is not None
    position: dict[str, Any] = CheckpointStore(refilled.root / "checkpoints", keep=2).load_meta(latest).data
    counts = position["curriculum"]["gap_counts"]
    assert sum(counts) == sum(4 + row.get("rollout/refilled_groups", 0) for row in refilled.metrics)


def test_refills_go_with_updates_at_the_same_time_and_with_a_phase_of_spread(game: Game) -> None:
    outcome = game.play(
        "refilled-overlap",
        *REFILLED,
        "stages.warmup.steps=2",
        "overlap=true",
        "critic.group.num_ranks=2",
        "rollout.num_workers=2",
        "data.curriculum={name: spread_first, steps: 2}",
        # So few that the phase comes to a new epoch, and would draw the warm-up's prompts again.
        "data.heldout_prompts=26",
        "stages.adversarial.steps=4",
    )
    assert outcome.code == 0, outcome.err
    game_steps = outcome.metrics[2:]
    assert any(row["rollout/refilled_groups"] > 0 for row in game_steps)
    admitted = [row["data/admitted_prompts"] for row in game_steps]
    assert max(admitted[:2]) < 14
    assert admitted[2:] == [14.0, 14.0]
    assert game_steps[1]["data/epoch"] > 1.0
    without = {
        example_id
        for example_id, rewards in _rewards_by_prompt(outcome, steps=(1, 2)).items()
        if len(set(rewards)) == 1
    }
    assert without
    assert not without & set(_rewards_by_prompt(outcome, steps=(3, 4)))


def _rewards_by_prompt(outcome: Outcome, *, steps: tuple[int, ...]) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    for record in (record for step in steps for record in _records(outcome, step)):
        hit = any(letter in record["student_response"] for letter in "bcdf")
        found.setdefault(record["example_id"], []).append(hit)
    return found
