"""Which precision ``auto`` comes to, and which choices are slow on this machine.

The rule: ``auto`` takes bfloat16 on a GPU that has it, and on a CPU whose measured rate in bfloat16 is at least 1.2 times
that in float32; float32 elsewhere, and for models so small that it makes no difference. The same factor, the other way
round, makes bfloat16 a slow choice that is warned of. A run decides once, in its driver, and keeps to it when resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from gad_ray import machine
from gad_ray.config import ModelConfig, Precision, PrecisionChoice, RunConfig
from gad_ray.errors import GadError, ModelError
from gad_ray.models.critic_meta import read_meta
from gad_ray.models.source import describe_model
from gad_ray.precision.rates import Rates, Shape, find_rates

_logger = logging.getLogger(__name__)

CLEARLY = 1.2
"""Times by which one precision's rate must exceed the other's to count as faster."""

_MIN_FLOP = 1e7
"""Of a model's product below which calls take longer than products: precision makes no difference, float32 is exact."""

_GPU_WITH_BFLOAT16 = 8.0
"""Compute capability from which a GPU has bfloat16 units (Ampere)."""

_TYPICAL = Shape.of(hidden=1024, intermediate=4096)
"""Where a model's widths are not known."""

_Came = Literal["auto", "set", "resumed"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The precision of one part of a run.

    Attributes:
        key: The setting, as ``policy.model.compute``.
        taken: What it came to.
        came: Whether by ``auto``, as it was set, or as the run began that is resumed.
        speed: What was found out of the device; None where nothing had to be.
    """

    key: str
    taken: Precision
    came: _Came
    speed: Speed | None = None

    def __str__(self) -> str:
        how = {"auto": "which auto comes to", "set": "as set", "resumed": "as the run began"}[self.came]
        told = f": {self.speed.told}" if self.speed else ""
        return f"{self.key} = {self.taken}, {how}{told}"

    @property
    def warning(self) -> str | None:
        """What to say of a slow choice before models load; None of any other."""
        if self.speed is None or self.taken != "bfloat16" or not self.speed.bfloat16_is_slow:
            return None
        hint = f"set {self.key}=auto, or float32"
        if self.came == "resumed":
            hint = (
                f"a resumed run keeps its precision; a new one takes {self.speed.faster} with {self.key}=auto"
            )
        return f"{self.key} = bfloat16 is slow here: {self.speed.told} → {hint}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A run's configuration in which no precision is ``auto``, and how that came about."""

    config: RunConfig
    choices: tuple[Choice, ...]

    @property
    def lines(self) -> list[str]:
        """A line for each setting."""
        return [str(choice) for choice in self.choices]

    @property
    def warnings(self) -> list[str]:
        """A line for each slow choice."""
        return [warning for choice in self.choices if (warning := choice.warning)]


def resolve_precision(config: RunConfig, *, earlier: RunConfig | None = None) -> Resolved:
    """Settle every precision that is ``auto``.

    Nothing is measured where all that matters is set to float32. A model that cannot be described is taken for one of
    typical widths: whoever loads it tells of the fault.

    Args:
        config: A run.
        earlier: The same run as it began, when it is resumed: what was ``auto`` stays what it came to then.
    """
    choices: list[Choice] = []
    for part in _PARTS:
        asked, came = part.of(config), "set"
        if asked == "auto":
            before = "auto" if earlier is None else part.of(earlier)
            asked, came = before, "auto" if before == "auto" else "resumed"
        speed = None
        if asked != "float32":
            model, on_gpu, threads = part.place(config)
            speed = speed_of(model, on_gpu=on_gpu, threads=threads)
            asked = speed.faster if asked == "auto" else asked
        choices.append(Choice(key=part.key, taken=asked, came=came, speed=speed))
        config = part.put(config, asked)
    return Resolved(config, tuple(choices))


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
    if shape.flop < _MIN_FLOP:
        return Speed(faster="float32", told="the model is so small that it makes no difference")
    threads = threads or machine.share_of_cores(1)
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


@cache
def shape_of(model: str) -> Shape:
    """The product that stands for a model; that of a typical one where it cannot be described."""
    try:
        facts = describe_model(model)
    except GadError:
        return _TYPICAL
    hidden = facts.architecture.hidden_size
    if hidden is None:
        return _TYPICAL
    return Shape.of(hidden=hidden, intermediate=facts.architecture.intermediate_size or 4 * hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A setting of precision: where it is, what computes in it and where."""

    key: str
    of: Callable[[RunConfig], PrecisionChoice]
    place: Callable[[RunConfig], tuple[str, bool, int]]
    put: Callable[[RunConfig, Precision], RunConfig]


def _learner(role: Literal["policy", "critic"]) -> _Part:
    def model_of(config: RunConfig) -> ModelConfig:
        return getattr(config, role).model

    def place(config: RunConfig) -> tuple[str, bool, int]:
        group = getattr(config, role).group
        threads = group.threads or machine.share_of_cores(group.num_ranks)
        return model_of(config).model, group.gpus_per_rank > 0, threads

    def put(config: RunConfig, precision: Precision) -> RunConfig:
        model = model_of(config).model_copy(update={"compute": precision})
        return _updated(config, role, model=model)

    return _Part(
        key=f"{role}.model.compute", of=lambda config: model_of(config).compute, place=place, put=put
    )


def _place_of_rollout(config: RunConfig) -> tuple[str, bool, int]:
    rollout = config.rollout
    threads = rollout.threads or machine.share_of_cores(rollout.num_workers)
    return config.policy.model.model, rollout.gpus_per_worker > 0, threads


def _updated(config: RunConfig, name: str, **values: Any) -> RunConfig:
    return config.model_copy(update={name: getattr(config, name).model_copy(update=values)})


_PARTS = (
    _learner("policy"),
    _learner("critic"),
    _Part(
        key="rollout.precision",
        of=lambda config: config.rollout.precision,
        place=_place_of_rollout,
        put=lambda config, precision: _updated(config, "rollout", precision=precision),
    ),
)
