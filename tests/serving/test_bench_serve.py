"""The load with swaps and a lost replica from the command line, on a real Ray Serve application with a tiny critic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import ray_environment
from tests.game import DEADLINE_S, REPOSITORY
from tests.tiny import make_tiny_model


@pytest.mark.study
def test_new_critics_and_a_killed_replica_cost_no_request_and_no_wrong_score(tmp_path: Path) -> None:
    model, out, page = make_tiny_model(tmp_path / "model"), tmp_path / "out", tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks.serve", "swaps", "--model", str(model), "--out", str(out)]
    sizes = ["--minutes", "0.25", "--swap-every", "2", "--kill-every", "4", "--threads", "1"]
    done = subprocess.run(
        [*command, *sizes, "--docs", str(page)],
        env={**ray_environment(), "COLUMNS": "200"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    figures = json.loads((out / "serve.json").read_text())["swaps"]["figures"]
    assert figures["kills"] >= 1
    assert figures["published"] >= 3
    patient = figures["with_retries"]
    assert patient["requests"] == patient["answered"] > 0
    assert (patient["wrong"], patient["unknown_version"], patient["lost"], patient["server_errors"]) == (
        0,
    ) * 4
    assert len(patient["answers_by_version"]) > 1
    assert figures["without_retries"]["wrong"] == figures["without_retries"]["unknown_version"] == 0
    row = f"| requests | {patient['requests']} | {figures['without_retries']['requests']} |"
    assert row in page.read_text(encoding="utf-8")
    assert "replicas killed" in done.stdout
