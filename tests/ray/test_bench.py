"""The comparison of methods from the command line: real verdicts, of the base model and of one that was fitted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
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


FAKE_TRL = """#!{python}
import json, sys
from transformers import AutoTokenizer

_, _, given, found = sys.argv
task = json.load(open(given))
tokenizer = AutoTokenizer.from_pretrained(task["model"])
per_step, responses = task["prompts_per_step"], task["responses_per_prompt"]
steps = []
for start in range(0, len(task["prompts"]), per_step):
    texts = task["prompts"][start : start + per_step]
    tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    steps.append(dict(
        seconds=10.0, rollout=4.0, update=6.0, prompt_tokens=tokens * responses,
        response_tokens=per_step * responses * task["response_tokens"],
    ))
json.dump(dict(versions=dict(trl="0"), steps=steps), open(found, "w"))
"""
"""In place of TRL's environment: computes nothing, and says what it was given to compute."""


def bench_step(game: Game, out: Path) -> subprocess.CompletedProcess[str]:
    out.mkdir()
    python = out / "python"
    python.write_text(FAKE_TRL.format(python=sys.executable))
    python.chmod(0o755)
    command = ["gad-ray", "bench", "step", str(game.config("beside")), "rollout.batch_sequences=4"]
    options = ["--shape", "2x2x6", "--precision", "float32", "--steps", "1", "--rounds", "1", "--json"]
    return subprocess.run(
        [*command, *options, "--python", str(python), "--out", str(out)],
        env=ray_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_a_step_of_the_game_is_measured_beside_a_peers_on_the_same_prompts_and_lengths(
    game: Game, tmp_path: Path
) -> None:
    done = bench_step(game, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures == json.loads((tmp_path / "out" / "step.json").read_text())
    (one,) = figures["rounds"]
    assert one["game"]["tokens"] == one["trl"]["tokens"] > 0
    (seconds,) = one["game"]["seconds"]
    assert figures["ratio"]["median"] == pytest.approx(seconds / 10.0)
    assert one["game"]["split"]["update_actor"] > 0.0
