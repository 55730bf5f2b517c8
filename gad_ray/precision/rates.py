"""How fast this machine multiplies in bfloat16 and in float32: measured at a model's shape, once, and kept.

A product of a feed-forward layer stands for the model: it is where most of a pass is spent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gad_ray import machine
from gad_ray.models.source import default_cache_dir
from gad_ray.observability.files import write_text

_logger = logging.getLogger(__name__)

TOKENS = 256
"""Tokens of the product: fewer than a micro-batch has, and enough for the rate to be that of a micro-batch."""

_MAX_FLOP = 5e8
"""Of one product; of a larger layer only so many columns are multiplied. 50 ms at 10 GFLOP/s."""

_MIN_ROUNDS = 3
_MAX_ROUNDS = 50
_BUDGET_S = 0.8

_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Variables that keep libraries from instructions which the processor has."""

_measured: dict[str, Rates] = {}


@dataclass(frozen=True, slots=True)
class Shape:
    """A product: [tokens, hidden] by [hidden, columns]."""

    tokens: int
    hidden: int
    columns: int

    @classmethod
    def of(cls, *, hidden: int, intermediate: int) -> Shape:
        """The product that stands for a model with these widths."""
        most = int(_MAX_FLOP / (2 * TOKENS * hidden))
        return cls(tokens=TOKENS, hidden=hidden, columns=max(1, min(intermediate, most)))

    @property
    def flop(self) -> int:
        """Multiplications and additions of one product."""
        return 2 * self.tokens * self.hidden * self.columns

    def __str__(self) -> str:
        return f"{self.tokens} × {self.hidden} × {self.columns}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """GFLOP/s of one product in each precision."""

    float32: float
    bfloat16: float

    def __str__(self) -> str:
        return f"{self.bfloat16:.0f} GFLOP/s in bfloat16, {self.float32:.0f} in float32"


def kept_rates(shape: Shape, *, threads: int) -> Rates | None:
    """What was measured here before, of the same product by as many threads; None where nothing was."""
    key = _key(shape, threads)
    return _measured.get(key) or _read(rates_file()).get(key)


def find_rates(shape: Shape, *, threads: int) -> Rates:
    """The rates of this machine's CPU: what is kept of them, or measured now, in about a second."""
    return kept_rates(shape, threads=threads) or keep_rates(shape, threads=threads)


def keep_rates(shape: Shape, *, threads: int) -> Rates:
    """Measure, and keep what was measured in place of what was kept."""
    rates = measure(shape, threads=threads)
    path, key = rates_file(), _key(shape, threads)
    # Also where no file can be written, one process decides once.
    _measured[key] = rates
    kept = {**_read(path), key: rates}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(
            path,
            json.dumps({key: asdict(value) for key, value in kept.items()}, indent=1, ensure_ascii=False)
            + "\n",
        )
    except OSError as error:
        _logger.info("%s cannot be written (%s): the rates are measured again next time", path, error)
    return rates


def rates_file() -> Path:
    """Where rates are kept: ``precision.json`` beside the converted models."""
    return default_cache_dir().parent / "precision.json"


def measure(shape: Shape, *, threads: int) -> Rates:
    """Multiply in both precisions by turns; the best of each counts.

    Other work on the machine can only lower a rate, and by turns it lowers both: the best of several short products is
    what the processor does when it is let.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        generator = torch.Generator().manual_seed(0)
        given = torch.randn(shape.tokens, shape.hidden, generator=generator)
        weight = torch.randn(shape.columns, shape.hidden, generator=generator)
        operands = {
            name: (given.to(dtype), weight.to(dtype))
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }
        shortest = dict.fromkeys(operands, float("inf"))
        start = time.perf_counter()
        with torch.inference_mode():
            for rounds in range(_MAX_ROUNDS):
                if rounds >= _MIN_ROUNDS and time.perf_counter() - start > _BUDGET_S:
                    break
                for name, (left, right) in operands.items():
                    began = time.perf_counter()
                    torch.nn.functional.linear(left, right)
                    shortest[name] = min(shortest[name], time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return Rates(**{name: shape.flop / seconds / 1e9 for name, seconds in shortest.items()})


def _key(shape: Shape, threads: int) -> str:
    """Everything that a rate depends on, in words."""
    cpu = machine.cpu()
    flags = hashlib.sha256(" ".join(sorted(cpu.flags)).encode()).hexdigest()[:8]
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)]
    return " | ".join(
        [cpu.model, f"flags {flags}", f"torch {_torch_version()}", f"{threads} threads", str(shape), *limits]
    )


def _torch_version() -> str:
    """From the metadata: torch takes seconds to import."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "none"


def _read(path: Path) -> dict[str, Rates]:
    """What is kept; a file that cannot be read holds nothing."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): _rates_of(value) for key, value in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _rates_of(value: Mapping[str, Any]) -> Rates:
    rates = Rates(float32=float(value["float32"]), bfloat16=float(value["bfloat16"]))
    if not (0 < rates.float32 < float("inf") and 0 < rates.bfloat16 < float("inf")):
        raise ValueError("a rate is a positive number")
    return rates
