"""Snapshots that cannot be taken whole: each fault leaves what comes before it as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


class _Lost(dict[str, Any]):
    """Raises in place of giving one of its arrays."""

    def __init__(self, tensors: Tensors, place: int) -> None:
        super().__init__(tensors)
        self._place = place

    def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        for i, item in enumerate(super().items()):
            if i == self._place:
                raise OSError("the connection was lost")
            yield item


def _unknown_name(tensors: Tensors, place: int) -> Tensors:
    return {name if i != place else f"{name}.x": array for i, (name, array) in enumerate(tensors.items())}


def _other_shape(tensors: Tensors, place: int) -> Tensors:
    def changed(array: NDArray[Any]) -> NDArray[Any]:
        return np.zeros([size + 1 for size in array.shape], dtype=array.dtype)

    return {name: array if i != place else changed(array) for i, (name, array) in enumerate(tensors.items())}


FAULTS: Mapping[str, Callable[[Tensors, int], Tensors]] = {
    "an unknown name": _unknown_name,
    "another shape": _other_shape,
    "lost": _Lost,
}
