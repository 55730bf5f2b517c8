"""A machine with given rates, in which nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from gad_ray.auto import Rates, Shape, decisions, precision
from gad_ray.config import Precision

SHAPE = Shape.of(hidden=576, intermediate=1536)
AVX2 = Rates(float32=120.0, bfloat16=12.0)
AMX = Rates(float32=130.0, bfloat16=870.0)
PASSES = {64: 40.0, 128: 70.0, 256: 98.0, 512: 100.0, 1024: 99.0}


def have_rates(
    monkeypatch: pytest.MonkeyPatch, rates: Rates, *, passes: Mapping[int, float] = PASSES
) -> list[tuple[Shape, int]]:
    """From here on this machine has these rates, whatever the model; gives a list of what was asked of it."""
    asked: list[tuple[Shape, int]] = []

    def find(shape: Shape, *, threads: int) -> Rates:
        asked.append((shape, threads))
        return rates

    def find_passes(
        shape: Shape,
        *,
        threads: int,
        precision: Precision,
        sizes: Sequence[int] = (),
        trains: bool = True,
    ) -> dict[int, float]:
        return {size: float(size) for size in sizes} or dict(passes)

    monkeypatch.setattr(precision, "find_rates", find)
    monkeypatch.setattr(precision, "shape_of", lambda model: SHAPE)
    monkeypatch.setattr(decisions, "find_pass_rates", find_passes)
    monkeypatch.setattr(decisions, "engine_rates", lambda key: {})
    return asked
