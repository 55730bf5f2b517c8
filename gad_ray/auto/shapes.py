"""The product that stands for a model."""

from __future__ import annotations

from functools import cache

from gad_ray.auto.rates import Shape
from gad_ray.errors import GadError
from gad_ray.models.facts import ModelFacts
from gad_ray.models.source import describe_model

_MIN_FLOP = 1e7
"""Of a model's product below which calls take longer than products: nothing that is measured here makes a difference."""

_TYPICAL = Shape.of(hidden=1024, intermediate=4096)
"""Where a model's widths are not known."""


@cache
def facts_of(model: str) -> ModelFacts | None:
    """What a model is; None where it cannot be described: whoever loads it tells of the fault."""
    try:
        return describe_model(model)
    except GadError:
        return None


def shape_of(model: str) -> Shape:
    """The product that stands for a model; that of a typical one where it cannot be described."""
    facts = facts_of(model)
    if facts is None or facts.architecture.hidden_size is None:
        return _TYPICAL
    hidden = facts.architecture.hidden_size
    return Shape.of(hidden=hidden, intermediate=facts.architecture.intermediate_size or 4 * hidden)


def is_tiny(shape: Shape) -> bool:
    """Whether calls take longer than products: then nothing is measured."""
    return shape.flop < _MIN_FLOP
