"""Offline fits from the command line to their last file, and games that begin with one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gad_ray.config import load_config
from gad_ray.evaluation.heldout import load_rollouts
from gad_ray.fitting.responses import load_responses
from gad_ray.observability.metrics import METRICS
from tests.game import Game, Outcome, read_metrics

STEPS = 6
IN_EVERY_STEP = {
    *(f"actor/{name}" for name in ("ce_loss", "grad_norm", "grad_norm_before_clip", "lr", "skipped_steps")),
    *(f"timing_s/{name}" for name in ("update_actor", "step")),
    *(f"perf/{name}" for name in ("train_tokens_per_s", "memory_bytes")),
    "data/epoch",
}
PREFERENCES = {
    *(f"dpo/{name}" for name in ("loss", "margin", "accuracy", "chosen_reward", "rejected_reward", "pairs"))
}


@pytest.fixture(scope="module")
def warm_started(game: Game) -> Outcome:
    """A game that begins with a fit by SeqKD."""
    return game.play(
        "warm",
        "stages.warm_start=seqkd",
        "stages.warmup.steps=1",
        "stages.adversarial.steps=1",
        "fit.seqkd.steps=3",
    )


def test_a_fit_ends_with_success_and_every_step_logged_under_registered_names(soda: Outcome) -> None:
    assert soda.code == 0, soda.err
    assert [row["step"] for row in soda.metrics] == list(range(1, STEPS + 1))
    for row in soda.metrics:
        assert row["stage"] == "soda"
        due = row["step"] % 3 == 0
        assert ("eval/teacher_nll" in row) == due
        assert set(row) >= IN_EVERY_STEP | PREFERENCES
        assert set(row) - {"step", "stage", "time"} <= set(METRICS)
        assert row["dpo/pairs"] == 8


def test_the_policy_learns_to_prefer_the_teacher_to_what_it_said_itself(soda: Outcome) -> None:
    first, last = soda.metrics[0], soda.metrics[-1]
    assert first["dpo/loss"] == pytest.approx(math.log(2.0), abs=1e-4)
    assert first["dpo/margin"] == pytest.approx(0.0, abs=1e-3)
    assert last["dpo/loss"] < 0.5
    assert last["dpo/accuracy"] == 1.0


def test_the_students_responses_were_drawn_once_for_the_prompts_that_are_trained_on(soda: Outcome) -> None:
    responses = load_responses(soda.root / "responses")
    assert len(set(responses.example_ids)) == STEPS * 4
    assert len(responses) == 2 * STEPS * 4
    assert responses.oldest_version == 0
    assert "the base policy has answered 24 of 24 training prompts" in soda.out


def test_the_table_compares_the_same_held_out_prompts_before_and_after(soda: Outcome) -> None:
    summary = json.loads((soda.root / "summary.json").read_text())
    rows = {row["label"]: row for row in summary["rows"]}
    nll = rows["negative log-likelihood of the teacher's text"]
    before = json.loads((soda.root / "eval" / "nll_before.json").read_text())
    assert nll["before"] == pytest.approx(np.mean(before), rel=1e-6)
    assert nll["after"] == pytest.approx(soda.metrics[-1]["eval/teacher_nll"], rel=1e-6)
    assert {"distinct-1", "distinct-2", "responses cut at the limit"} <= set(rows)
    answered = [load_rollouts(soda.root / "eval" / f"{when}.parquet") for when in ("before", "after")]
    assert answered[0].example_ids == answered[1].example_ids
    assert answered[0].texts != answered[1].texts
    samples = [json.loads(line) for line in (soda.root / "samples.jsonl").read_text().splitlines()]
    assert [s["before"] for s in samples] == list(answered[0].texts)
    written = [line.split() for line in soda.out.partition("Written:\n")[2].splitlines() if line.strip()]
    assert written[0] == ["model", str(soda.root / "exports" / "policy")]
    assert all(Path(words[-1]).exists() for words in written)


def test_the_fits_directory_has_its_own_name_config_and_versions(soda: Outcome) -> None:
    assert soda.root.name == "offline-soda"
    saved = load_config(str(soda.root / "config.yaml"))
    assert saved.name == "offline-soda"
    assert saved.fit.soda.responses_per_prompt == 2
    assert json.loads((soda.root / "versions.json").read_text())["torch"] == torch.__version__
    assert (soda.root / "quarantine.jsonl").exists()
    assert not (soda.root / "ray-train").exists()


def test_a_game_begins_with_what_the_warm_start_made(warm_started: Outcome) -> None:
    assert warm_started.code == 0, warm_started.err
    place = warm_started.root / "warm_start"
    fitted = read_metrics(place)
    assert [(row["stage"], row["step"]) for row in fitted] == [("seqkd", step) for step in (1, 2, 3)]
    assert [row["stage"] for row in warm_started.metrics] == ["warmup", "adversarial"]
    # The game's own record of its first policy is of the fitted one, to which the teacher's text is likelier.
    first = json.loads((warm_started.root / "eval" / "nll_before.json").read_text())
    assert np.mean(first) == pytest.approx(fitted[-1]["eval/teacher_nll"], rel=1e-4)
    base = json.loads((place / "eval" / "nll_before.json").read_text())
    assert np.mean(first) < np.mean(base)


def test_the_game_compares_itself_with_the_base_model_and_says_so(warm_started: Outcome) -> None:
    summary = json.loads((warm_started.root / "summary.json").read_text())
    rows = {row["label"]: row for row in summary["rows"]}
    base = json.loads((warm_started.root / "warm_start" / "eval" / "nll_before.json").read_text())
    before = rows["negative log-likelihood of the teacher's text"]["before"]
    assert before == pytest.approx(np.mean(base), rel=1e-6)
    assert "Before: the base model, as it was before the warm start." in warm_started.out


def test_a_game_that_goes_on_does_not_repeat_its_warm_start(warm_started: Outcome, game: Game) -> None:
    exported = warm_started.root / "warm_start" / "exports" / "policy" / "model.safetensors"
    made = exported.stat().st_mtime_ns
    outcome = game.play(
        "warm",
        "stages.warm_start=seqkd",
        "stages.warmup.steps=1",
        "stages.adversarial.steps=2",
        "fit.seqkd.steps=3",
        resume="auto",
    )
    assert outcome.code == 0, outcome.err
    assert [row["step"] for row in outcome.metrics] == [1, 2, 3]
    assert exported.stat().st_mtime_ns == made
