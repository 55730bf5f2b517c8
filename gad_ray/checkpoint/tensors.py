"""Nested state of tensors and plain values, in safetensors files: bit-exact, without pickle.

The tensors are the file's tensors; all else is JSON in the file's header.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gad_ray.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STATE_FILE = "state"
"""Name of a learner's state in its folder of a checkpoint."""

_HEADER_KEY = "gad_ray"


def save_state(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write named tensors and a record.

    Tensors that are one and the same (tied weights) are stored once and come back as one.

    Args:
        path: The file; its folder is made if need be.
        tensors: Name → tensor, on any device.
        meta: A JSON object.

    Raises:
        CheckpointError: If ``meta`` is no JSON object, or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_name: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        identity = (str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        original = first_name.setdefault(identity, name) if tensor.numel() else name
        if original == name:
            stored[name] = tensor.detach().contiguous()
        else:
            aliases[name] = original
    try:
        header = json.dumps({"aliases": aliases, "meta": dict(meta)})
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(stored, path, metadata={_HEADER_KEY: header})
    except (TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot be written ({error})", where=str(path), hint="free space, or choose another folder"
        ) from error


def load_state(path: Path, *, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_state`` wrote.

    Args:
        path: The file.
        prefix: Read only the tensors whose names begin with it.

    Returns:
        The tensors, on the CPU and in memory of their own, and the record.

    Raises:
        CheckpointError: If the file is missing, damaged, or was not written by ``save_state``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER_KEY])
            aliases = {n: original for n, original in header["aliases"].items() if n.startswith(prefix)}
            wanted = {n for n in file.keys() if n.startswith(prefix)} | set(aliases.values())  # noqa: SIM118
            # Cloned, so that nothing depends on the file once it is read.
            tensors: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in sorted(wanted)}
        for name, original in aliases.items():
            tensors[name] = tensors[original]
        return tensors, cast("dict[str, Any]", header["meta"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = "it has no record of ours" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"cannot be read as saved state ({reason})",
            where=str(path),
            hint="verify the checkpoint it belongs to, and go on from an older one",
        ) from error


def save_nested(path: Path, value: Any) -> None:
    """Write a nested value, such as an optimiser's ``state_dict()``.

    Args:
        path: The file; its folder is made if need be.
        value: Dicts (keys: strings or integers), lists, tuples, tensors, strings, numbers, booleans and None,
            to any depth.

    Raises:
        CheckpointError: If it holds anything else, named by where it is, or the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _flatten(value, "", tensors)
    save_state(path, tensors, {"nested": skeleton})


def load_nested(path: Path) -> Any:
    """Read what ``save_nested`` wrote: equal in structure, types and bits.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds no nested value.
    """
    tensors, meta = load_state(path)
    if "nested" not in meta:
        raise CheckpointError(
            "holds no nested value", where=str(path), hint="read it with load_state, as it was written"
        )
    return _restore(meta["nested"], tensors)


def _flatten(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Put tensors aside under the name of their place; tag what JSON has no word for."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[place] = value
        return {"$tensor": place}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        strange = [key for key in items if type(key) not in (int, str)]
        if strange:
            raise CheckpointError(
                f"a key of type {type(strange[0]).__name__} cannot be saved",
                where=place or "the top",
                hint="use text",
            )
        return {
            "$items": [
                [key, _flatten(item, f"{place}.{key}".lstrip("."), tensors)] for key, item in items.items()
            ]
        }
    if type(value) in (list, tuple):
        parts = [
            _flatten(item, f"{place}.{index}".lstrip("."), tensors)
            for index, item in enumerate(cast("Sequence[Any]", value))
        ]
        return {"$tuple": parts} if isinstance(value, tuple) else parts
    raise CheckpointError(
        f"a value of type {type(value).__name__} cannot be saved",
        where=place or "the top",
        hint="turn it into tensors, numbers, text, lists or dicts",
    )


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restore(item, tensors) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    [(tag, content)] = cast("dict[str, Any]", value).items()
    if tag == "$tensor":
        return tensors[content]
    if tag == "$tuple":
        return tuple(_restore(item, tensors) for item in content)
    return {key: _restore(item, tensors) for key, item in content}


def capture_rng(generators: Mapping[str, np.random.Generator] | None = None) -> dict[str, Any]:
    """The state of this process's random numbers: Python's, torch's on every device, and given generators.

    Args:
        generators: Name → numpy generator (PCG64, numpy's default, or another whose state is plain numbers).

    Returns:
        A nested value for ``save_nested``.
    """
    import torch

    return {
        "python": random.getstate(),
        "torch_cpu": torch.get_rng_state(),
        "torch_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {name: generator.bit_generator.state for name, generator in (generators or {}).items()},
    }


def restore_rng(
    state: Mapping[str, Any], generators: Mapping[str, np.random.Generator] | None = None
) -> None:
    """Set this process's random numbers to a state that ``capture_rng`` gave.

    Args:
        state: The state, as captured or as read back.
        generators: The numpy generators to set, under the names they were captured with.

    Raises:
        CheckpointError: If the state is of other generators or of another number of GPUs.
    """
    import torch

    given = dict(generators or {})
    if given.keys() != state["numpy"].keys():
        raise CheckpointError(
            f"the random state is of the generators {sorted(state['numpy'])}, not {sorted(given)}",
            hint="resume with the release and config that the checkpoint was made with",
        )
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(state["torch_cuda"]) != num_gpus:
        raise CheckpointError(
            f"the random state is of {len(state['torch_cuda'])} GPUs, and this process sees {num_gpus}",
            hint="resume with as many GPUs in each process as before",
        )
    random.setstate(state["python"])
    torch.set_rng_state(state["torch_cpu"])
    if num_gpus:
        torch.cuda.set_rng_state_all(state["torch_cuda"])
    for name, generator in given.items():
        generator.bit_generator.state = state["numpy"][name]
