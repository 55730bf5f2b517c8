"""A machine's rates: measured in both precisions, kept in a file, and asked for again only where something differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gad_ray import machine
from gad_ray.auto import Rates, Shape, find_rates, kept
from gad_ray.auto import rates as module
from gad_ray.auto.kept import forget_measured, keep, rates_file
from gad_ray.auto.rates import PASS_TOKENS, find_pass_rates, keep_rates, kept_rates
from gad_ray.machine import Cpu

SHAPE = Shape.of(hidden=576, intermediate=1536)
MEASURED = Rates(float32=120.0, bfloat16=10.0)


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAD_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr(kept, "_measured", {})
    monkeypatch.setattr(machine, "cpu", lambda: Cpu(model="A processor", flags=frozenset({"avx2"})))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Shape]:
    """The shapes that were measured; each measurement gives the same."""
    made: list[Shape] = []

    def measure(shape: Shape, *, threads: int) -> Rates:
        made.append(shape)
        return MEASURED

    monkeypatch.setattr(module, "measure", measure)
    return made


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_measured", {})


def test_the_product_is_the_models_own_and_is_cut_where_it_would_take_long() -> None:
    assert (SHAPE.tokens, SHAPE.hidden, SHAPE.columns) == (256, 576, 1536)
    assert SHAPE.flop == 2 * 256 * 576 * 1536
    large = Shape.of(hidden=3584, intermediate=18944)
    assert (large.hidden, large.columns) == (3584, 272)
    assert large.flop <= 5e8


def test_what_was_measured_is_kept_for_the_next_process(
    calls: list[Shape], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert kept_rates(SHAPE, threads=2) is None
    assert find_rates(SHAPE, threads=2) == MEASURED
    another_process(monkeypatch)
    assert find_rates(SHAPE, threads=2) == MEASURED
    assert calls == [SHAPE]
    assert rates_file() == tmp_path / "rates.json"


@pytest.mark.parametrize("differs", ["threads", "shape", "flags", "model", "torch", "limit"])
def test_another_machine_setting_or_shape_is_measured_anew(
    calls: list[Shape], monkeypatch: pytest.MonkeyPatch, differs: str
) -> None:
    find_rates(SHAPE, threads=2)
    shape, threads = SHAPE, 2
    match differs:
        case "threads":
            threads = 1
        case "shape":
            shape = Shape.of(hidden=576, intermediate=2048)
        case "flags":
            monkeypatch.setattr(machine, "cpu", lambda: Cpu(model="A processor", flags=frozenset({"amx"})))
        case "model":
            monkeypatch.setattr(machine, "cpu", lambda: Cpu(model="Another", flags=frozenset({"avx2"})))
        case "torch":
            monkeypatch.setattr(kept, "_torch_version", lambda: "9.9")
        case _:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")  # set otherwise perhaps, where the tests run
    assert kept_rates(shape, threads=threads) is None
    find_rates(shape, threads=threads)
    assert len(calls) == 2
    assert len(json.loads(rates_file().read_text())["precision"]) == 2


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '"text"', '{"precision": 3}', '{"precision": {"key": {"float32": "fast"}}}', "\xff"],
)
def test_a_damaged_file_holds_nothing_and_is_replaced(calls: list[Shape], content: str) -> None:
    rates_file().write_text(content, encoding="latin-1")
    assert find_rates(SHAPE, threads=2) == MEASURED
    assert len(calls) == 1
    assert len(json.loads(rates_file().read_text())["precision"]) == 1


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_not_taken_from_the_file(calls: list[Shape], rate: float) -> None:
    find_rates(SHAPE, threads=2)
    (key,) = json.loads(rates_file().read_text())["precision"]
    rates_file().write_text(json.dumps({"precision": {key: {"float32": rate, "bfloat16": 5.0}}}))
    kept._measured.clear()
    assert kept_rates(SHAPE, threads=2) is None


def test_where_no_file_can_be_written_one_process_still_measures_once(
    calls: list[Shape], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GAD_RAY_CACHE", str(tmp_path / "file" / "cache"))
    assert find_rates(SHAPE, threads=2) == find_rates(SHAPE, threads=2) == MEASURED
    assert len(calls) == 1


def test_measuring_anew_replaces_what_was_kept(calls: list[Shape], monkeypatch: pytest.MonkeyPatch) -> None:
    find_rates(SHAPE, threads=2)
    another = Rates(float32=1.0, bfloat16=2.0)
    monkeypatch.setattr(module, "measure", lambda shape, threads: another)
    keep_rates(SHAPE, threads=2)
    another_process(monkeypatch)
    assert kept_rates(SHAPE, threads=2) == another


def test_the_best_of_several_products_counts_whatever_disturbs_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that stands for a loaded machine: float32 products last 4, 1, 9 … ms, those of bfloat16 2, 8, 3 … ms."""
    lasts = iter([4.0, 2.0, 1.0, 8.0, 9.0, 3.0] + [5.0, 5.0] * 47)
    now = [0.0]
    linear = torch.nn.functional.linear

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        now[0] += next(lasts) / 1000
        return linear(left, right)

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.nn.functional, "linear", product)
    threads = torch.get_num_threads()
    found = module.measure(Shape(tokens=10, hidden=100, columns=500), threads=1)
    assert found.float32 == pytest.approx(1.0)  # 1e6 in 1 ms
    assert found.bfloat16 == pytest.approx(0.5)
    assert torch.get_num_threads() == threads


def test_a_slow_machine_stops_after_three_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, products = [0.0], [0]

    def product(left: torch.Tensor, right: torch.Tensor) -> None:
        now[0] += 1.0
        products[0] += 1

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.nn.functional, "linear", product)
    module.measure(Shape(tokens=1, hidden=1, columns=1), threads=1)
    assert products[0] == 2 * 3


def test_a_real_measurement_gives_two_rates() -> None:
    found = module.measure(Shape(tokens=8, hidden=16, columns=32), threads=1)
    assert found.float32 > 0
    assert found.bfloat16 > 0


def test_a_real_measurement_of_passes_gives_a_rate_for_every_size_and_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = Shape(tokens=8, hidden=16, columns=32)
    found = find_pass_rates(shape, threads=1, precision="float32")
    assert tuple(found) == PASS_TOKENS
    assert all(rate > 0 for rate in found.values())
    another_process(monkeypatch)
    assert find_pass_rates(shape, threads=1, precision="float32") == found
    assert len(json.loads(rates_file().read_text())["passes"]) == 1


def test_what_is_forgotten_is_what_was_measured_and_not_what_runs_have_left(calls: list[Shape]) -> None:
    find_rates(SHAPE, threads=2)
    keep("engines", "key", {"vllm": 300.0})
    forget_measured()
    assert kept_rates(SHAPE, threads=2) is None
    assert json.loads(rates_file().read_text()) == {"engines": {"key": {"vllm": 300.0}}}
    find_rates(SHAPE, threads=2)
    assert len(calls) == 2
