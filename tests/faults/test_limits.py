"""Runs that must stop: unsynchronised weights, deadlines, resources that are not there."""

from __future__ import annotations

from tests.game import SLOW_ROLLOUT, Game


def test_an_engine_that_keeps_an_old_weight_stops_the_run_before_it_trains(game: Game) -> None:
    outcome = game.play("deaf", program="tests.faults.deaf_engine")
    assert outcome.code == 1
    assert "the new weights did not take effect" in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.metrics == []


def test_a_rollout_beyond_its_deadline_ends_the_run_naming_step_and_setting(game: Game) -> None:
    outcome = game.play("late", *SLOW_ROLLOUT, "limits.rollout_s=1")
    assert outcome.code == 1
    assert "the responses of step 1 (rollout-0) did not end within 1 s" in outcome.err
    assert "raise the deadline under limits" in outcome.err
    assert str(outcome.root / "logs" / "rollout-0.log") in outcome.err
    assert "Traceback" not in outcome.err


def test_resources_that_no_machine_of_the_cluster_has_are_refused_with_the_numbers(game: Game) -> None:
    outcome = game.play("large", "rollout.cpus_per_worker=100")
    assert outcome.code == 1
    assert "the run reserves 100.4 CPUs, the cluster has 2" in outcome.err
    assert "lower cpus_per_rank and cpus_per_worker" in outcome.err
    assert not list((outcome.root / "logs").iterdir()), "no actor was started"


def test_a_machine_without_memory_left_is_named_as_the_cause_with_who_uses_it(game: Game) -> None:
    # Ray of the run's own, told that memory counts as full at one part in a hundred: it ends what it can.
    outcome = game.play("full_memory", own_cluster=True, environment={"RAY_memory_usage_threshold": "0.01"})
    assert outcome.code == 1
    assert "the machine's memory was nearly full during" in outcome.err
    assert "Top 10 memory users:" in outcome.err
    assert "micro_batch_tokens" in outcome.err
    assert "Traceback" not in outcome.err
