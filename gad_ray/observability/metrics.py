"""What a metric is, and all that are declared by those who produce them; a metric's name in Prometheus.

A name means one thing in all stages. Values are those of one step, never running means.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

STAGES = ("warmup", "adversarial", "seqkd", "soda")
"""The stages of a run, and the methods of an offline fit; the only label that metrics carry."""


class Unit(StrEnum):
    """Unit of a metric's value; also the suffix of its Prometheus name where one is customary."""

    NONE = ""
    RATIO = "ratio"
    """A share between 0 and 1."""
    SECONDS = "seconds"
    BYTES = "bytes"
    TOKENS = "tokens"
    TOKENS_PER_SECOND = "tokens_per_second"
    NATS = "nats"
    EPOCHS = "epochs"
    UPDATES = "updates"


class Kind(StrEnum):
    """How values of different steps go together."""

    GAUGE = "gauge"
    """The value as it stood in the step."""
    COUNTER = "counter"
    """The number of events in the step; Prometheus adds them up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric."""

    name: str
    description: str
    unit: Unit = Unit.NONE
    kind: Kind = Kind.GAUGE


def gauge(name: str, description: str, unit: Unit = Unit.NONE) -> MetricSpec:
    """A value as it stands in a step."""
    return MetricSpec(name=name, description=description, unit=unit)


def counter(name: str, description: str) -> MetricSpec:
    """Events in a step."""
    return MetricSpec(name=name, description=description, kind=Kind.COUNTER)


def spread(prefix: str, what: str) -> tuple[MetricSpec, ...]:
    """Mean, standard deviation and ends of some values."""
    words = {"mean": "Mean", "std": "Standard deviation", "min": "Smallest", "max": "Largest"}
    return tuple(gauge(prefix + key, f"{word} of {what}") for key, word in words.items())


_DECLARED_IN = ("rewards", "learners", "evaluation", "health", "controller")
"""Rooms that produce metrics: each says which in its module ``metrics``, which loads neither torch nor ray."""


class _Metrics(Mapping[str, MetricSpec]):
    """All metrics by name, read from where they are declared when they are first asked for."""

    @cached_property
    def _specs(self) -> dict[str, MetricSpec]:
        found: dict[str, MetricSpec] = {}
        for room in _DECLARED_IN:
            for spec in importlib.import_module(f"gad_ray.{room}.metrics").METRICS:
                if spec.name in found:
                    raise ValueError(f"the metric '{spec.name}' is declared twice, the second time by {room}")
                found[spec.name] = spec
        return found

    def __getitem__(self, name: str) -> MetricSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


METRICS: Mapping[str, MetricSpec] = _Metrics()
"""All metrics by name."""

# Nats, epochs and updates are no units of Prometheus; their names go without.
_SUFFIXED = {Unit.RATIO, Unit.SECONDS, Unit.BYTES, Unit.TOKENS, Unit.TOKENS_PER_SECOND}


def metric_spec(name: str) -> MetricSpec:
    """The registered metric of a name.

    Raises:
        ValueError: If no metric is called so.
    """
    try:
        return METRICS[name]
    except KeyError:
        raise ValueError(
            f"'{name}' is not a registered metric: declare it where it is produced, in the module metrics of its room"
        ) from None


def check_metrics(stage: str, metrics: Mapping[str, float]) -> None:
    """Refuse what is not registered.

    Raises:
        ValueError: For an unknown stage, an unknown metric, or a counter below zero.
    """
    if stage not in STAGES:
        raise ValueError(f"'{stage}' is not a stage: {', '.join(STAGES)}")
    for name, value in metrics.items():
        if metric_spec(name).kind is Kind.COUNTER and value < 0:
            raise ValueError(f"the counter '{name}' cannot count {value} events")


def prometheus_name(name: str) -> str:
    """The metric's name in Prometheus: ``gad_`` first, base unit last, ``_total`` after a counter.

    Ray exposes it with one more prefix, ``ray_``.

    Raises:
        ValueError: If no metric is called so.
    """
    spec = metric_spec(name)
    # The unit stands at the end and in full: timing_s/step → gad_timing_step_seconds.
    base = "gad_" + re.sub(r"_per_s$", "_per_second", name.replace("timing_s/", "timing/")).replace("/", "_")
    if spec.unit in _SUFFIXED and not base.endswith(f"_{spec.unit.value}"):
        base += f"_{spec.unit.value}"
    return base + "_total" if spec.kind is Kind.COUNTER else base
