"""The exchange and the controller's scale from the command line, on a real cluster: what can be counted, not seconds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, ray_environment
from tests.game import DEADLINE_S


def bench(cluster: Cluster, name: str, *options: str, out: Path) -> dict[str, Any]:
    done = subprocess.run(
        ["gad-ray", "bench", name, *options, "--weights", "1", "--json", "--out", str(out)],
        env={**ray_environment(), "RAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / f"{name}.json").read_text()) == json.loads(done.stdout)
    return json.loads(done.stdout)


@pytest.mark.parametrize(("workers", "critics", "policies"), [(1, 1, 1), (2, 3, 2)])
def test_responses_go_to_every_rank_uncopied_and_past_the_driver(
    ray_cluster: Cluster, tmp_path: Path, workers: int, critics: int, policies: int
) -> None:
    sizes = {"--workers": workers, "--critics": critics, "--policies": policies}
    options = [text for name, number in sizes.items() for text in (name, str(number))]
    figures = bench(ray_cluster, "exchange", "--shape", "4x2x2048", "--steps", "2", *options, out=tmp_path)
    a_step = figures["a_step"]
    assert a_step["calls"] == 2 * workers + critics + policies + 1
    # A receipt and a probe of every worker, what the ranks' updates did, the rewards' report, the weights' version.
    assert a_step["results"] == 2 * workers + critics + policies + 2
    arrays = 8 * (2048 * 4 + 2048 * 4 + 256 * 4)
    text = a_step["sent_bytes"] - arrays
    assert text > 8 * 2048 * 3.7
    assert a_step["read_bytes"] == critics * (arrays + text) + policies * arrays
    assert a_step["copied_bytes"] == 0
    assert a_step["result_bytes"] < 4096, "the driver takes receipts, no batch"
    assert figures["spilled_mib"] == 0


def test_messages_grow_with_workers_and_ranks_not_with_their_product(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    options = ("--workers", "8", "--ranks", "4", "--processes", "2", "--steps", "1")
    figures = bench(ray_cluster, "scale", "--shape", "1x2x16", "--seconds", "0,0,0,0", *options, out=tmp_path)
    rows = [(row["workers"], row["ranks"], row["calls"], row["results"]) for row in figures["rows"]]
    sizes = [(1, 1), (2, 1), (4, 2), (8, 4)]
    assert rows == [(w, r, 2 * w + 2 * r + 1, 2 * w + 2 * r + 2) for w, r in sizes]
    assert all(row["spilled_mib"] == 0 for row in figures["rows"])
