"""What each process of a spawned group runs: every variant, one after the other, over gloo."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file, save_file

from gad_ray.learners.collective import TorchCollective
from tests.unit.learners.variants import CASES, Played


def run_rank(rank: int, size: int, address: str, model_dir: Path, out_dir: Path) -> None:
    """Join a group, play every case, and write what came out of it."""
    torch.set_num_threads(1)
    group = TorchCollective(
        rank=rank, size=size, address=address, timeout_s=600.0, device=torch.device("cpu")
    )
    listening = {one.laddr.ip for one in psutil.Process().net_connections("inet") if one.status == "LISTEN"}
    (out_dir / f"listening-{rank}.json").write_text(json.dumps(sorted(listening)))
    for number, play in enumerate(CASES.values()):
        save(play(model_dir, group), out_dir / f"{number}-of-rank-{rank}")
    group.close()


def save(played: Played, path: Path) -> None:
    """Write what came of a case."""
    tensors = {f"weights/{name}": tensor for name, tensor in played.weights.items()}
    for step, gradient in enumerate(played.gradients):
        tensors |= {f"gradient {step}/{name}": tensor for name, tensor in gradient.items()}
    save_file(tensors, path.with_suffix(".safetensors"))
    path.with_suffix(".json").write_text(json.dumps({"figures": played.figures, "scores": played.scores}))


def load(path: Path) -> Played:
    """Read what :func:`save` wrote."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(path.with_suffix(".safetensors")).items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor
    weights = parts.pop("weights")
    gradients = [parts[f"gradient {step}"] for step in range(len(parts))]
    return Played(gradients, weights, **json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
