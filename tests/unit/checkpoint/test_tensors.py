import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gad_ray.checkpoint.tensors import (
    capture_rng,
    load_nested,
    load_state,
    restore_rng,
    save_nested,
    save_state,
)
from gad_ray.errors import CheckpointError


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).square().sum().backward()
        optimizer.step()


def make(lr: float = 0.1) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    groups = [
        {"params": [model[0].weight, model[1].weight], "weight_decay": 0.1},
        {"params": [model[0].bias, model[1].bias], "weight_decay": 0.0, "lr": 1 / 3},
    ]
    return model, torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), amsgrad=True)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_an_optimisers_state_comes_back_to_the_bit(tmp_path: Path):
    model, optimizer = make()
    train(model, optimizer, 3)
    save_nested(tmp_path / "optimizer.safetensors", optimizer.state_dict())
    assert same(load_nested(tmp_path / "optimizer.safetensors"), optimizer.state_dict())


def test_training_that_was_saved_and_read_back_goes_on_bit_for_bit(tmp_path: Path):
    torch.manual_seed(0)
    model, optimizer = make()
    train(model, optimizer, 2)
    save_nested(
        tmp_path / "all.safetensors",
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": capture_rng()},
    )
    train(model, optimizer, 4)

    torch.manual_seed(99)
    again, optimizer_again = make(lr=7.0)
    state = load_nested(tmp_path / "all.safetensors")
    again.load_state_dict(state["model"])
    optimizer_again.load_state_dict(state["optimizer"])
    restore_rng(state["rng"])
    train(again, optimizer_again, 4)
    assert same(dict(again.state_dict()), dict(model.state_dict()))
    assert same(optimizer_again.state_dict(), optimizer.state_dict())


def test_every_kind_of_value_keeps_its_type_and_bits(tmp_path: Path):
    value = {
        "none": None,
        "flags": [True, False],
        1: {"2": (1, (2.5, "x"), [])},
        "floats": [0.1, 1e-320, -0.0, 1e308],
        "big": 2**127 + 1,
        "empty": {},
        "$tensor": {"$tuple": 1},
        "tensors": {
            "bfloat16": torch.randn(3, 2).to(torch.bfloat16),
            "scalar": torch.tensor(5, dtype=torch.int64),
            "none": torch.empty(0, 3),
            "odd": torch.tensor([float("nan"), float("inf"), -0.0]).view(torch.int32),
            "strided": torch.arange(12.0).reshape(3, 4).t(),
            "bool": torch.tensor([True, False]),
        },
    }
    save_nested(tmp_path / "value.safetensors", value)
    assert same(load_nested(tmp_path / "value.safetensors"), value)


@pytest.mark.parametrize(
    ("value", "place"),
    [({"a": [1, {2, 3}]}, r"a\.1: a value of type set"), ({"a": {1.5: 1}}, "a: a key of type float")],
)
def test_a_value_that_cannot_be_saved_is_named_by_its_place(tmp_path: Path, value: object, place: str):
    with pytest.raises(CheckpointError, match=place):
        save_nested(tmp_path / "value.safetensors", value)


def test_tied_tensors_are_stored_once_and_come_back_tied(tmp_path: Path):
    shared = torch.randn(100, 100)
    save_state(tmp_path / "state.safetensors", {"embed": shared, "head": shared, "other": shared.clone()}, {})
    assert (tmp_path / "state.safetensors").stat().st_size < 2.2 * shared.nbytes
    tensors, _ = load_state(tmp_path / "state.safetensors")
    assert tensors["embed"] is tensors["head"]
    assert tensors["embed"] is not tensors["other"]
    assert same(tensors["head"], shared)


def test_what_was_read_does_not_hang_on_the_file(tmp_path: Path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"x": torch.ones(1000)}, {"step": 3})
    tensors, meta = load_state(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    tensors["x"] += 1
    assert torch.equal(tensors["x"], torch.full((1000,), 2.0))
    assert meta == {"step": 3}


def test_a_file_is_safetensors_that_any_reader_can_read(tmp_path: Path):
    from safetensors.torch import load_file

    save_state(tmp_path / "state.safetensors", {"x": torch.arange(3)}, {})
    assert same(load_file(tmp_path / "state.safetensors"), {"x": torch.arange(3)})


def test_a_damaged_missing_or_foreign_file_is_named(tmp_path: Path):
    from safetensors.torch import save_file

    path = tmp_path / "state.safetensors"
    with pytest.raises(CheckpointError, match=r"state\.safetensors: cannot be read"):
        load_state(path)
    save_state(path, {"x": torch.ones(10)}, {})
    with pytest.raises(CheckpointError, match="holds no nested value"):
        load_nested(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(path)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="no record of ours"):
        load_state(path)


def test_random_numbers_go_on_where_they_were_captured(tmp_path: Path):
    generator = np.random.default_rng(5)
    generator.random(3)
    torch.manual_seed(3)
    random.seed(4)
    save_nested(tmp_path / "rng.safetensors", capture_rng({"data": generator}))

    def draw(data: np.random.Generator) -> tuple[list[float], list[float], list[float]]:
        return torch.rand(4).tolist(), [random.random() for _ in range(4)], data.random(4).tolist()

    expected = draw(generator)
    other = np.random.default_rng(77)
    restore_rng(load_nested(tmp_path / "rng.safetensors"), {"data": other})
    assert draw(other) == expected


def test_a_random_state_of_other_generators_is_refused():
    state = capture_rng({"data": np.random.default_rng(0)})
    with pytest.raises(CheckpointError, match=r"generators \['data'\], not \['other'\]"):
        restore_rng(state, {"other": np.random.default_rng(0)})


def test_a_random_state_of_more_gpus_than_there_are_is_refused():
    state = capture_rng()
    state["torch_cuda"] = [*state["torch_cuda"], torch.zeros(16, dtype=torch.uint8)]
    with pytest.raises(CheckpointError, match="GPUs"):
        restore_rng(state)


def test_the_record_is_plain_json_in_the_header(tmp_path: Path):
    from safetensors import safe_open

    save_state(tmp_path / "state.safetensors", {"x": torch.ones(1)}, {"rank": 2})
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["gad_ray"])["meta"] == {"rank": 2}
