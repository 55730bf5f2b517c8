"""A whole run from Python: configured, trained, evaluated, its critic scoring."""

from __future__ import annotations

import json
import math

from tests.game import Game


def test_a_run_is_configured_trained_evaluated_and_scored_with_from_python(game: Game) -> None:
    steps = ("stages.warmup.steps=1", "stages.adversarial.steps=1", "evaluation.every=0")
    outcome = game.play("from-python", *steps, program="tests.ray.run_by_api")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out.strip().splitlines()[-1])
    assert told["finished"]
    assert told["policy"]
    assert told["root"] == str(outcome.root)
    assert 0.0 <= told["d_acc"] <= 1.0
    assert math.isfinite(told["score"])
