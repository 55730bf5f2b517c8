"""Runs submitted to a cluster as Ray jobs, by the commands that the documentation shows."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster import Cluster, ray_environment
from tests.game import Game, read_metrics
from tests.processes import wait_until_gone


def _submit(cluster: Cluster, *entrypoint: str) -> subprocess.CompletedProcess[str]:
    command = ["ray", "job", "submit", "--address", cluster.dashboard, "--", *entrypoint]
    return subprocess.run(command, env=ray_environment(), capture_output=True, text=True, timeout=280)


def test_a_job_plays_a_run_on_the_cluster_and_leaves_only_the_cluster(
    game: Game, ray_cluster: Cluster
) -> None:
    root = game.directory / "runs" / "job"
    config = str(game.config("job"))
    done = _submit(
        ray_cluster, "gad-ray", "train", config, "stages.warmup.steps=2", "stages.adversarial.steps=1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    assert [row["step"] for row in read_metrics(root)] == [1, 2, 3]
    assert (root / "exports" / "policy" / "model.safetensors").is_file()
    assert str(root / "exports" / "policy") in done.stdout, "the job's output reaches who submitted it"
    wait_until_gone(root)


def test_a_job_with_a_bad_config_fails_with_the_reason(
    game: Game, ray_cluster: Cluster, tmp_path: Path
) -> None:
    done = _submit(
        ray_cluster,
        "gad-ray",
        "train",
        str(game.config("bad-job")),
        f"data.train=[{tmp_path / 'none.jsonl'}]",
    )
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "failed with exit code 2" in told
    assert "none.jsonl" in told
    wait_until_gone(game.directory / "runs" / "bad-job")
