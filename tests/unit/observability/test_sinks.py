from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gad_ray.errors import CheckpointError
from gad_ray.observability.sinks import JsonlSink, MetricSink, MultiSink, RayPrometheusSink, TensorBoardSink


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_step_is_one_line_and_there_at_once(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(step=1, stage="warmup", metrics={"critic/d_acc": 0.75, "rollout/failed": 0.0})
    sink.log(step=2, stage="adversarial", metrics={"critic/d_acc": 0.5})
    rows = read(tmp_path / "metrics.jsonl")
    assert all(row.pop("time") > 0 for row in rows)
    assert rows == [
        {"step": 1, "stage": "warmup", "critic/d_acc": 0.75, "rollout/failed": 0.0},
        {"step": 2, "stage": "adversarial", "critic/d_acc": 0.5},
    ]
    sink.close()


def test_floats_survive_the_file_bit_by_bit(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(step=1, stage="warmup", metrics={"critic/d_loss": value})
    assert read(tmp_path / "metrics.jsonl")[0]["critic/d_loss"] == value
    sink.close()


def test_values_that_are_not_finite_become_null_and_are_counted(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(step=1, stage="warmup", metrics={"critic/d_loss": math.nan, "actor/pg_loss": -math.inf})
    sink.log(step=2, stage="warmup", metrics={"critic/d_loss": 0.5})
    first, second = read(tmp_path / "metrics.jsonl")
    assert first["critic/d_loss"] is None
    assert first["nonfinite"] == {"critic/d_loss": "nan", "actor/pg_loss": "-inf"}
    assert "nonfinite" not in second
    assert sink.num_nonfinite == 2
    sink.close()


def test_a_resumed_run_writes_the_lines_after_its_checkpoint_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.log(step=1, stage="warmup", metrics={"critic/d_acc": 0.25})
    position = sink.position()
    sink.log(step=2, stage="warmup", metrics={"critic/d_acc": 0.5})
    sink.close()
    assert position < path.stat().st_size

    resumed = JsonlSink(path)
    resumed.truncate_to(position)
    resumed.log(step=2, stage="warmup", metrics={"critic/d_acc": 0.75})
    assert [row["critic/d_acc"] for row in read(path)] == [0.25, 0.75]
    assert resumed.position() == path.stat().st_size
    resumed.close()


def test_a_run_may_be_taken_back_to_its_very_beginning(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(step=1, stage="warmup", metrics={})
    sink.truncate_to(0)
    assert sink.position() == 0
    sink.close()


def test_a_file_that_is_shorter_than_its_checkpoint_says_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.log(step=1, stage="warmup", metrics={})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"holds {len(before)} bytes, .* when it held 5000"):
        sink.truncate_to(5000)
    with pytest.raises(CheckpointError, match="no line ends at byte 7"):
        sink.truncate_to(7)
    assert path.read_bytes() == before
    sink.close()


def scalars(directory: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_tensorboard_reads_the_scalars_back(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    for step in (1, 2, 3):
        sink.log(step=step, stage="warmup", metrics={"critic/d_acc": step / 4})
    sink.close()
    sink.close()
    assert scalars(tmp_path, "critic/d_acc") == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_tensorboard_forgets_the_steps_that_a_resumed_run_takes_again(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    for step in (1, 2, 3):
        sink.log(step=step, stage="warmup", metrics={"critic/d_acc": 0.25})
    sink.close()
    resumed = TensorBoardSink(tmp_path, purge_step=2)
    resumed.log(step=2, stage="warmup", metrics={"critic/d_acc": 0.75})
    resumed.close()
    assert scalars(tmp_path, "critic/d_acc") == [(1, 0.25), (2, 0.75)]


class RecordedMeter:
    """Stands in for Ray's Gauge and Counter, which can only be read back from a whole cluster."""

    made: dict[str, RecordedMeter]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert tag_keys == ("stage",)
        assert description
        self.values: list[tuple[float, dict[str, str]]] = []
        self.made[name] = self

    def set(self, value: float, *, tags: dict[str, str]) -> None:
        self.values.append((value, tags))

    def inc(self, value: float, *, tags: dict[str, str]) -> None:
        assert value > 0
        self.values.append((value, tags))


def test_prometheus_gets_finite_values_under_base_unit_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.util.metrics

    made: dict[str, RecordedMeter] = {}
    monkeypatch.setattr(RecordedMeter, "made", made, raising=False)
    monkeypatch.setattr(ray.util.metrics, "Gauge", RecordedMeter)
    monkeypatch.setattr(ray.util.metrics, "Counter", RecordedMeter)
    sink: MetricSink = RayPrometheusSink()
    sink.log(
        step=7,
        stage="adversarial",
        metrics={
            "timing_s/step": 2.5,
            "critic/d_acc": math.nan,
            "rollout/retried": 2.0,
            "rollout/failed": 0.0,
        },
    )
    tags = {"stage": "adversarial"}
    written = {name: meter.values for name, meter in made.items() if meter.values}
    assert written == {
        "gad_train_step": [(7.0, tags)],
        "gad_timing_step_seconds": [(2.5, tags)],
        "gad_rollout_retried": [(2.0, tags)],
    }


class RecordingSink:
    def __init__(self, *, fails: bool = False) -> None:
        self.steps: list[int] = []
        self.closed = False
        self._fails = fails

    def log(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        self.steps.append(step)

    def close(self) -> None:
        self.closed = True
        if self._fails:
            raise OSError("disk full")


def test_several_sinks_get_the_same_steps_and_all_are_closed() -> None:
    first, second = RecordingSink(fails=True), RecordingSink()
    sink = MultiSink([first, second])
    sink.log(step=3, stage="warmup", metrics={"critic/d_acc": 0.5})
    with pytest.raises(OSError, match="disk full"):
        sink.close()
    assert first.steps == second.steps == [3]
    assert second.closed


def test_an_unknown_metric_reaches_no_sink(tmp_path: Path) -> None:
    jsonl, board, other = JsonlSink(tmp_path / "m.jsonl"), TensorBoardSink(tmp_path / "tb"), RecordingSink()
    for sink in (jsonl, board, MultiSink([other, jsonl])):
        with pytest.raises(ValueError, match="'critic/made_up' is not a registered metric"):
            sink.log(step=1, stage="warmup", metrics={"critic/d_acc": 0.5, "critic/made_up": 1.0})
    assert jsonl.position() == 0
    assert other.steps == []
    board.close()
    jsonl.close()
