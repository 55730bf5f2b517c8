"""``gad-ray bench sync`` on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gad_ray.bench.sync import SyncFigures
from tests.unit.test_cli import run


def test_a_sync_is_measured_beside_a_copy_of_its_bytes(
    tied_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(tied_model), "--engine", "transformers", "--rounds", "3"]
    assert run("bench", "sync", *options, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["engine"], told["precision"]) == ("transformers", "float32")
    assert [len(told[part]) for part in ("copy", "load", "probe")] == [3, 3, 3]
    # 384 × 32 embeddings, tied; two layers of attention (4 heads, 2 of keys and values), MLP and norms; the last norm.
    layer = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 64 + 2 * 32
    assert told["num_bytes"] == 4 * (384 * 32 + 2 * layer + 32)
    assert run("bench", "sync", *options) == 0
    assert "one copy of the bytes" in capsys.readouterr().out


def test_a_ratio_is_of_medians() -> None:
    figures = SyncFigures(
        engine="vllm",
        precision="bfloat16",
        num_bytes=8,
        copy=(1.0, 2.0, 9.0),
        load=(8.0, 3.0, 50.0),
        probe=(2.0, 2.0, 2.0),
    )
    assert figures.ratio(figures.load) == 4.0
    assert figures.table()[2] == ("load", "8.000", "3.000 to 50.000", "4.0")


def test_an_unknown_precision_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "sync", "--dtype", "float16") == 2
    assert "float32 or bfloat16" in capsys.readouterr().err
