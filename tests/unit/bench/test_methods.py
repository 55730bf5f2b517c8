"""The table of a comparison, from figures that are there."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gad_ray.bench.methods import METHODS, MethodsBench, table
from gad_ray.cli import main
from gad_ray.config import RunConfig


def figures(method: str, seed: int, area: float) -> dict[str, Any]:
    interval = {"value": area, "low": 0.0, "high": 1.0}
    return {
        "method": method,
        "seed": seed,
        "train_seconds": 250.0 + seed,
        "nll": 1.5,
        "length_ratio": 1.25,
        "cut": 0.5,
        "distinct_1": 0.5,
        "distinct_2": 0.9,
        "fresh": {"auc": interval, "d_acc": interval, "train_d_acc": 0.9, "num_prompts": 64, "num_steps": 26},
    }


def test_what_is_there_is_not_made_again_and_is_tabled_with_its_interval(tmp_path: Path):
    for seed, area in enumerate((0.7, 0.8, 0.9)):
        (tmp_path / f"base-{seed}.json").write_text(json.dumps(figures("base", seed, area)))
    bench = MethodsBench(recipe="quickstart", out=tmp_path, seeds=(0, 1, 2), methods=("base",))
    rows = table(bench.run())
    assert rows[0] == ["measure", "base"]
    # Standard error 0.1/√3, times 4.3027.
    assert rows[1] == ["fresh critic's AUC", "0.800 ± 0.248"]
    assert rows[-1] == ["training, seconds", "251 ± 2"]
    assert len(json.loads((tmp_path / "methods.json").read_text())["students"]) == 3


def test_a_single_seed_is_tabled_without_an_interval(tmp_path: Path):
    (tmp_path / "base-0.json").write_text(json.dumps(figures("base", 0, 0.75)))
    bench = MethodsBench(recipe="quickstart", out=tmp_path, seeds=(0,), methods=("base",))
    assert table(bench.run())[1] == ["fresh critic's AUC", "0.750"]


@pytest.mark.parametrize("method", ["seqkd", "soda", "game"])
def test_a_student_is_trained_where_it_is_looked_for(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The command that is run, with the part that needs Ray left out."""
    trained: list[RunConfig] = []

    def keep(config: RunConfig, *_: object, **__: object) -> int:
        trained.append(config)
        return 0

    monkeypatch.setattr(import_module("gad_ray.controller.fit"), "fit", keep)
    monkeypatch.setattr(import_module("gad_ray.controller.train"), "train", keep)

    def run(command: Sequence[str]) -> int:
        program, arguments = command[:3], command[3:]
        assert program == [sys.executable, "-m", "gad_ray"]
        with pytest.raises(SystemExit) as left:
            main(arguments)
        return int(left.value.code or 0)

    monkeypatch.setattr("gad_ray.bench.methods.exit_code", run)
    bench = MethodsBench(recipe="quickstart", out=tmp_path, seeds=(7,), methods=(method,))
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl") as missing:
        bench.run()
    (config,) = trained
    assert Path(config.output_dir) / config.name == Path(missing.value.filename).parent
    assert (config.seed, config.data.seed) == (7, 7 if method == "seqkd" else 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--method", "sft"], f"take some of {', '.join(METHODS)}"), (["--seeds", "0"], "take 3 or more")],
)
def test_what_cannot_be_compared_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as left:
        main(["bench", "methods", "quickstart", *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
