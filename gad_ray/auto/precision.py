"""Which precision ``auto`` comes to, and where bfloat16 is slow.

The rule: ``auto`` takes bfloat16 on a GPU that has it, and on a CPU whose measured rate in bfloat16 is at least 1.2 times
that in float32; float32 elsewhere, and for models so small that it makes no difference. The same factor, the other way
round, makes bfloat16 a slow choice that is warned of.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gad_ray import machine
from gad_ray.auto.choice import Came, Choice
from gad_ray.auto.rates import Rates, Shape, find_rates
from gad_ray.auto.shapes import is_tiny, shape_of
from gad_ray.auto.threads import share_of_cores
from gad_ray.config import Precision, PrecisionChoice
from gad_ray.errors import ModelError
from gad_ray.models.critic_meta import read_meta

_logger = logging.getLogger(__name__)

CLEARLY = 1.2
"""Times by which one precision's rate must exceed the other's to count as faster."""

_GPU_WITH_BFLOAT16 = 8.0
"""Compute capability from which a GPU has bfloat16 units (Ampere)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What speaks for either precision on one device.

    Attributes:
        faster: The precision that ``auto`` takes.
        told: Why, with the figures.
        bfloat16_is_slow: Whether bfloat16 is clearly slower than float32.
    """

    faster: Precision
    told: str
    bfloat16_is_slow: bool = False


def choose_precision(key: str, asked: PrecisionChoice, *, came: Came, speed: Speed | None) -> Choice:
    """The precision of one part of a run.

    Args:
        key: The setting.
        asked: What it says.
        came: Whether it was set, or comes from the run that is resumed.
        speed: What was found out of the device; needed unless float32 is asked for.
    """
    if asked == "auto":
        assert speed is not None
        return Choice(key=key, taken=speed.faster, came="auto", reason=speed.told)
    slow = speed is not None and speed.bfloat16_is_slow and asked == "bfloat16"
    told = speed.told if speed else None
    return Choice(key=key, taken=asked, came=came, reason=told, slow=told if slow else None, better="float32")


def speed_of(model: str, *, on_gpu: bool, threads: int | None = None) -> Speed:
    """What either precision is worth for a model on this machine.

    Args:
        model: A model's name, as for ``resolve_model``.
        on_gpu: Whether it computes on a GPU.
        threads: Of its process; all cores when None.
    """
    if on_gpu:
        return _speed_of_gpu(machine.gpu_capabilities())
    shape = shape_of(model)
    if is_tiny(shape):
        return Speed(faster="float32", told="the model is so small that it makes no difference")
    threads = threads or share_of_cores(model, 1)
    return speed_from(find_rates(shape, threads=threads), shape, threads=threads)


def warn_of_slow_critic(directory: Path, *, on_gpu: bool = False) -> None:
    """Warn before a critic is loaded that computes in bfloat16, where that is slow: its precision came with it.

    Args:
        directory: An exported critic; of anything else, whoever loads it tells.
        on_gpu: Whether it computes on a GPU.
    """
    try:
        meta = read_meta(directory)
    except ModelError:
        return
    if meta.get("dtype") != "bfloat16":
        return
    speed = speed_of(str(directory), on_gpu=on_gpu)
    if speed.bfloat16_is_slow:
        _logger.warning(
            "warning: the critic in %s computes in bfloat16, which is slow here: %s → score where bfloat16 is fast, "
            "or train one with critic.model.compute=float32",
            directory,
            speed.told,
        )


def speed_from(rates: Rates, shape: Shape, *, threads: int) -> Speed:
    """The verdict on a CPU's measured rates."""
    by = f"{threads} thread{'s' if threads > 1 else ''}"
    return Speed(
        faster="bfloat16" if rates.bfloat16 >= CLEARLY * rates.float32 else "float32",
        told=f"{rates} (this CPU, {shape}, {by})",
        bfloat16_is_slow=rates.float32 >= CLEARLY * rates.bfloat16,
    )


def _speed_of_gpu(capabilities: Sequence[float]) -> Speed:
    """By compute capability; the GPUs of other machines are taken for ones with bfloat16."""
    if not capabilities:
        return Speed(faster="bfloat16", told="on a GPU, of which nothing is known here")
    least = min(capabilities)
    if least >= _GPU_WITH_BFLOAT16:
        return Speed(faster="bfloat16", told=f"on a GPU of compute capability {least:g}")
    told = f"the GPU's compute capability is {least:g}, and bfloat16 begins at {_GPU_WITH_BFLOAT16:g}"
    return Speed(faster="float32", told=told, bfloat16_is_slow=True)
