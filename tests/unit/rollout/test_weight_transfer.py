"""Weights on their way into a running vLLM: real engines with tiny models, in this process and in one of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gad_ray.batch import WeightsSnapshot
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.run import LimitsConfig
from gad_ray.errors import RolloutError, SyncError
from gad_ray.models.chat import load_chat_format
from gad_ray.rollout.vllm_engine import VllmEngine
from gad_ray.rollout.weight_transfer import in_shared_memory
from gad_ray.rollout.worker import RolloutWorker, probe_row
from tests.tiny import make_tiny_model
from tests.unit.builders import policy_config, policy_learner, prompt_batch, sampling
from tests.unit.rollout.faults import FAULTS

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
NUM_TENSORS = 12


@pytest.fixture(scope="module", params=["tied", "untied"])
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As small as vLLM's attention on a CPU takes it."""
    directory = tmp_path_factory.mktemp("vllm") / request.param
    return make_tiny_model(directory, hidden=128, layers=1, tied=request.param == "tied")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("vllm") / "model", hidden=128, layers=1)


@pytest.fixture
def open_worker() -> Iterator[Callable[[Path], RolloutWorker]]:
    workers: list[RolloutWorker] = []

    def build(directory: Path) -> RolloutWorker:
        config = RolloutConfig(precision="float32", max_response_tokens=32, batch_sequences=8)
        engine = VllmEngine(directory, config, stop_token_ids=(2,), max_prompt_tokens=128, seed=0)
        workers.append(RolloutWorker(engine, load_chat_format(directory), config, LimitsConfig()))
        return workers[-1]

    yield build
    for worker in workers:
        worker.close()


def snapshot_of(directory: Path, *, perturbation: float = 0.1) -> WeightsSnapshot:
    """Every tensor changed, so that one that an engine did not take would show."""
    learner, probe = policy_learner(policy_config(directory)), probe_row(load_chat_format(directory))
    return learner.snapshot(dtype="float32", probe=probe, perturbation=perturbation)


class CopiedBytes(TorchDispatchMode):
    """Counts what torch copies from tensor to tensor."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.copy_.default and not args[0].is_meta:
            self.total += args[0].nbytes
        return func(*args, **(kwargs or {}))


@needs_vllm
def test_every_weight_arrives_and_is_copied_once(
    any_model: Path, open_worker: Callable[[Path], RolloutWorker]
) -> None:
    snapshot, worker = snapshot_of(any_model), open_worker(any_model)
    with CopiedBytes() as copied:
        assert worker.load_weights(snapshot) < 1e-3
    # Packing for the kernels is not torch's; the probe's own pass copies a little.
    assert snapshot.num_bytes <= copied.total < 1.1 * snapshot.num_bytes


@needs_vllm
def test_vllm_is_given_the_very_memory_of_the_snapshot(
    model: Path, open_worker: Callable[[Path], RolloutWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, worker = snapshot_of(model), open_worker(model)
    engine: Any = vars(worker)["_engine"]
    llm = engine._llm
    given: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(llm, "start_weight_update", lambda: None)
    monkeypatch.setattr(llm, "finish_weight_update", lambda version: None)
    monkeypatch.setattr(
        llm, "update_weights", lambda request: given.update(dict(request["update_info"]["views"]))
    )
    engine.load_weights(snapshot)
    places = {name: tensor.data_ptr() for name, tensor in given.items()}
    assert places == {name: array.ctypes.data for name, array in snapshot.tensors.items()}
    assert places["lm_head.weight"] == places["model.embed_tokens.weight"]


@needs_vllm
@pytest.mark.parametrize("place", range(NUM_TENSORS))
def test_a_vllm_that_failed_at_any_tensor_serves_nothing_until_it_is_built_anew(
    model: Path, open_worker: Callable[[Path], RolloutWorker], place: int
) -> None:
    snapshot, worker = snapshot_of(model), open_worker(model)
    assert len(snapshot.tensors) == NUM_TENSORS
    fault = list(FAULTS.values())[place % len(FAULTS)]
    with pytest.raises(SyncError, match="may hold a part of it"):
        worker.load_weights(replace(snapshot, tensors=fault(snapshot.tensors, place)))
    with pytest.raises(RolloutError, match="may hold parts of two"):
        worker.generate(prompt_batch(), sampling())
    with pytest.raises(RolloutError, match="build the worker anew"):
        worker.load_weights(snapshot)


@needs_vllm
def test_a_vllm_built_anew_takes_the_weights_that_failed_before(
    model: Path, open_worker: Callable[[Path], RolloutWorker]
) -> None:
    snapshot, worker = snapshot_of(model), open_worker(model)
    with pytest.raises(SyncError):
        worker.load_weights(replace(snapshot, tensors=FAULTS["lost"](snapshot.tensors, 5)))
    worker.close()
    again = open_worker(model)
    assert again.load_weights(snapshot) < 1e-3
    assert len(again.generate(prompt_batch(), sampling())) == 12


_APART = """
import sys
from pathlib import Path

import numpy as np

from gad_ray.config.rollout import RolloutConfig
from gad_ray.models.chat import load_chat_format
from gad_ray.rollout.vllm_engine import VllmEngine
from gad_ray.rollout.worker import probe_row
from tests.unit.builders import policy_config, policy_learner

if __name__ == "__main__":
    model, config = Path(sys.argv[1]), RolloutConfig(precision="float32", max_response_tokens=32, batch_sequences=8)
    probe = probe_row(load_chat_format(model))
    learner = policy_learner(policy_config(model))
    engine = VllmEngine(model, config, stop_token_ids=(2,), max_prompt_tokens=128, seed=0)
    assert engine._is_apart
    for size in (0.1, 0.0):
        snapshot = learner.snapshot(dtype="float32", probe=probe, perturbation=size)
        before = np.abs(engine.probe(probe) - snapshot.probe_logprobs).max()
        engine.load_weights(snapshot)
        print("gaps:", before, np.abs(engine.probe(probe) - snapshot.probe_logprobs).max())
    engine.close()
"""


@needs_vllm
def test_a_vllm_in_a_process_of_its_own_takes_weights_from_memory_that_it_maps(
    model: Path, tmp_path: Path
) -> None:
    """Spawned, as it is by a Ray actor."""
    script = tmp_path / "apart.py"
    script.write_text(_APART)
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, str(script), str(model)],
        env={
            **os.environ,
            "PYTHONPATH": str(root),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    gaps = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("gaps:")]
    assert len(gaps) == 2
    assert all(float(before) > 0.1 and float(after) < 1e-3 for before, after in gaps)


def test_shared_memory_holds_each_tensor_once_and_is_gone_at_the_end() -> None:
    tensors = [
        ("a", torch.arange(6).reshape(2, 3).to(torch.bfloat16)),
        ("b", torch.ones(4).to(torch.bfloat16)),
    ]
    with in_shared_memory(tensors) as mapped:
        path = Path(mapped.path)
        assert path.stat().st_size == sum(tensor.nbytes for _, tensor in tensors)
        views = dict(mapped.views())
        assert all(torch.equal(views[name], tensor) for name, tensor in tensors)
        assert views["b"].data_ptr() - views["a"].data_ptr() == tensors[0][1].nbytes
    assert not path.exists()


def test_memory_that_does_not_suffice_is_an_error_and_not_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="no space left"), in_shared_memory([("a", torch.ones(4))]):
        pass
    assert np.sum([path.name.startswith("gad-ray-weights-") for path in Path("/dev/shm").iterdir()]) == 0
