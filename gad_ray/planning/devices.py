"""What a plan may run on: published peaks of GPUs, the measured rate of this CPU, and the shares of them that are reached."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gad_ray.config import Precision
from gad_ray.errors import ConfigError

_LARGE = 1e9
"""Parameters from which a GPU no longer waits for the program: between the 0.5B and the 1.5B shape of docs/speed.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU, or the threads of one process on a CPU: its peaks, and the share of each that is reached.

    Attributes:
        name: As ``--device`` takes it.
        rates: Precision → FLOP/s of dense matrix products.
        bandwidth: Bytes per second of its memory.
        link: Bytes per second, one way, to main memory, through which weights go to the engines.
        memory_gib: GiB of its memory; 0 for a CPU.
        train: Share of the rate in passes with a gradient.
        score: Share in forward passes over whole texts, and in decoding.
        prefill: Share in the engine's pass over a prompt.
        read: Share of the bandwidth in decoding and in the optimiser.
        copy: Share of the link in a weight sync.
    """

    name: str
    rates: Mapping[Precision, float]
    bandwidth: float
    link: float
    memory_gib: float = 0.0
    train: float
    score: float
    prefill: float
    read: float = 0.6
    copy: float = 0.25

    def for_model(self, parameters: float, mfu: float | None = None) -> Device:
        """The same with the shares that a model of this size reaches, or with the one that is given."""
        if mfu is None and (parameters >= _LARGE or not self.memory_gib):
            return self
        share = 0.10 if mfu is None else mfu
        return replace(self, train=share, score=share, prefill=share)


def _gpu(
    name: str, *, bfloat16: float, float32: float, bandwidth: float, link: float, memory_gib: float
) -> Device:
    """From TFLOP/s, GB/s and GiB.

    The share in training is that of the 1.5B shape on an H200 (docs/speed.md): 30 % of the critic's update, and 29 % of the policy's, whose
    22 % leave the reference's pass out; the 0.5B shape comes to 9 to 12 %. Forward passes and prefill are taken to
    reach the same; the shares of bandwidth and link are assumed.
    """
    return Device(
        name=name,
        rates={"bfloat16": bfloat16 * 1e12, "float32": float32 * 1e12},
        bandwidth=bandwidth * 1e9,
        link=link * 1e9,
        memory_gib=memory_gib,
        train=0.30,
        score=0.30,
        prefill=0.30,
    )


GPUS: Mapping[str, Device] = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100", bfloat16=312, float32=19.5, bandwidth=2039, link=32, memory_gib=80),
        _gpu("h100", bfloat16=989, float32=67, bandwidth=3350, link=64, memory_gib=80),
        _gpu("h200", bfloat16=989, float32=67, bandwidth=4800, link=64, memory_gib=141),
        _gpu("l4", bfloat16=121, float32=30.3, bandwidth=300, link=32, memory_gib=24),
        _gpu("l40s", bfloat16=362, float32=91.6, bandwidth=864, link=32, memory_gib=48),
    )
}
"""The makers' data sheets: dense products, SXM modules where there are any, PCIe to main memory."""


def find_gpu(name: str) -> Device:
    """The GPU of a name, as ``--device`` or a driver ("NVIDIA H200") gives it.

    Raises:
        ConfigError: If it is none of the table.
    """
    words = name.lower().replace("-", " ").split()
    if found := next((GPUS[word] for word in words if word in GPUS), None):
        return found
    close = difflib.get_close_matches(name.lower(), GPUS, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise ConfigError(
        f"{name!r} is no GPU whose rates are known",
        where="--device",
        hint=f"{hint}known ones: {', '.join(GPUS)}",
    )


def cpu(*, threads: int, rates: Mapping[Precision, float]) -> Device:
    """The threads of a process on a CPU.

    Args:
        threads: Of the process.
        rates: FLOP/s of one product of the model's shape, measured.
    """
    # Half of what a product alone reaches, and 10 GB/s of memory a thread: assumed, for want of a calibration.
    share = 0.5
    return Device(
        name=f"{threads} CPU thread{'s' if threads > 1 else ''}",
        rates=rates,
        bandwidth=threads * 10e9,
        link=5e9,
        train=share,
        score=share,
        prefill=share,
        copy=1.0,
    )
