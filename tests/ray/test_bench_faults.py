"""The study of injected faults from the command line: a sick run with its injection, and a healthy one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import Cluster, ray_environment
from tests.game import DEADLINE_S, REPOSITORY, Game, write_rows

SICK, HEALTHY = "bfloat16-head", "seed-0"
NUM_ROWS = 60


@pytest.mark.study
def test_an_injected_fault_is_named_and_a_healthy_run_is_tabled_beside_it(
    game: Game, ray_cluster: Cluster, tmp_path: Path
) -> None:
    # Numbers of two digits each: prompts of three lengths, enough of each to hold some out.
    rows = [
        {
            "id": f"row-{i}",
            "content": f"Say number {i + 10} in a sentence{' of few words' * (i % 3)}.",
            "teacher_response": f"The number is {i + 10}, and it is {('fine', 'good', 'right')[i % 3]}.",
        }
        for i in range(NUM_ROWS)
    ]
    base, out = game.config("faults"), tmp_path / "study"
    text = base.read_text(encoding="utf-8").replace(
        str(game.data), str(write_rows(tmp_path / "rows.jsonl", rows))
    )
    base.write_text(text, encoding="utf-8")
    page = tmp_path / "page.md"
    command = [
        sys.executable,
        "-m",
        "benchmarks.faults",
        SICK,
        HEALTHY,
        "--base",
        str(base),
        "--out",
        str(out),
    ]
    done = subprocess.run(
        [*command, "--docs", str(page)],
        env={**ray_environment(), "COLUMNS": "200", "RAY_ADDRESS": ray_cluster.address},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=True,
    )
    cases = json.loads((out / "faults.json").read_text(encoding="utf-8"))["cases"]
    assert {name: case["exit_code"] for name, case in cases.items()} == {SICK: 0, HEALTHY: 0}
    assert {name: case["steps"] for name, case in cases.items()} == {SICK: 8, HEALTHY: 24}
    rounded = [alarm for alarm in cases[SICK]["alarms"] if alarm["rule"] == "scores-rounded"]
    # With its window full for the first time.
    assert [alarm["step"] for alarm in rounded] == [5]
    assert "scores-rounded" not in {alarm["rule"] for alarm in cases[HEALTHY]["alarms"]}
    assert "1 of 1 faults were named within 20 steps." in done.stdout
    assert f"| {SICK} | scores that went through bfloat16 | scores-rounded | 5 |" in page.read_text(
        encoding="utf-8"
    )
