"""The comparison of methods from the command line: real verdicts, of the base model and of one that was fitted."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster import ray_environment
from tests.game import DEADLINE_S, Game, Outcome

METHODS = ("base", "soda")


def compare(game: Game, out: Path) -> str:
    methods = [argument for method in METHODS for argument in ("--method", method)]
    command = ["gad-ray", "bench", "methods", str(game.config("compared")), *methods]
    done = subprocess.run(
        [*command, "--seeds", "1", "--out", str(out)],
        env={**ray_environment(), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return done.stdout


def test_what_is_trained_is_judged_once_and_tabled(game: Game, soda: Outcome, tmp_path: Path) -> None:
    out = tmp_path / "compared"
    shutil.copytree(soda.root, out / "runs" / "soda-0")
    told = compare(game, out)
    students = {one["method"]: one for one in json.loads((out / "methods.json").read_text())["students"]}
    assert set(students) == set(METHODS)
    assert students["base"]["train_seconds"] == 0.0
    spent = sum(row["timing_s/step"] for row in soda.metrics)
    assert students["soda"]["train_seconds"] == pytest.approx(spent)
    # The fit made the teacher's text likelier; the same rows and the same measure for both.
    assert students["soda"]["nll"] < students["base"]["nll"]
    for student in students.values():
        fresh = student["fresh"]
        assert fresh["num_prompts"] == 6
        assert 0.0 <= fresh["auc"]["low"] <= fresh["auc"]["value"] <= fresh["auc"]["high"] <= 1.0
        assert f"{student['nll']:.3f}" in told
