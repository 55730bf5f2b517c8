"""What a finished run leaves of its engine's rate."""

from __future__ import annotations

import json
from pathlib import Path

from gad_ray.controller.train import rollout_rate
from gad_ray.observability.run_dir import RunDirectory


def test_the_rate_of_a_run_is_the_median_of_its_steps(tmp_path: Path) -> None:
    directory = RunDirectory(root=tmp_path)
    rows = [{"step": i, "perf/rollout_tokens_per_s": rate} for i, rate in enumerate([5.0, 300.0, 200.0])]
    directory.metrics_jsonl.write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"event": "resumed"}])
    )
    assert rollout_rate(directory) == 200.0


def test_a_run_without_steps_leaves_none(tmp_path: Path) -> None:
    directory = RunDirectory(root=tmp_path)
    directory.metrics_jsonl.write_text("")
    assert rollout_rate(directory) is None
