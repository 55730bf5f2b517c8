"""The comparison of methods, from the command line, with real runs and real verdicts of tiny models."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster import Cluster, ray_environment
from tests.game import DEADLINE_S, Game

METHODS = ("base", "seqkd")


def compare(game: Game, cluster: Cluster, out: Path) -> subprocess.CompletedProcess[str]:
    settings = ["fit.seqkd.steps=3"]
    methods = [argument for method in METHODS for argument in ("--method", method)]
    command = ["gad-ray", "bench", "methods", str(game.config("compared")), *settings, *methods]
    return subprocess.run(
        [*command, "--seeds", "1", "--out", str(out)],
        env={**ray_environment(), "RAY_ADDRESS": cluster.address, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )


def test_every_method_is_trained_judged_and_tabled_once(
    game: Game, ray_cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "compared"
    told = compare(game, ray_cluster, out).stdout
    students = {one["method"]: one for one in json.loads((out / "methods.json").read_text())["students"]}
    assert set(students) == set(METHODS)
    assert students["base"]["train_seconds"] == 0.0
    rows = (out / "runs" / "seqkd-0" / "metrics.jsonl").read_text().splitlines()
    spent = sum(json.loads(row)["timing_s/step"] for row in rows)
    assert students["seqkd"]["train_seconds"] == pytest.approx(spent)
    # What the fit is for; the same rows and the same measure for both.
    assert students["seqkd"]["nll"] < students["base"]["nll"]
    for student in students.values():
        fresh = student["fresh"]
        assert fresh["num_prompts"] == 6
        assert 0.0 <= fresh["auc"]["low"] <= fresh["auc"]["value"] <= fresh["auc"]["high"] <= 1.0
    again = compare(game, ray_cluster, out).stdout
    assert told.endswith(again), "what is there is tabled, not made again"
    for student in students.values():
        assert f"{student['nll']:.3f}" in again
