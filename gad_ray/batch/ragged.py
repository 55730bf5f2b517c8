"""Rows of different lengths as flat arrays, which Ray hands out of its object store without a copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch.checks import check

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ragged:
    """Rows of different lengths: ``values`` end to end, row i at ``offsets[i]:offsets[i+1]``."""

    values: NDArray[Any]
    offsets: Int64

    def __post_init__(self) -> None:
        check(
            self.offsets.ndim == 1 and len(self.offsets) >= 1,
            "offsets must be a vector of at least one entry",
        )
        check(int(self.offsets[0]) == 0, "offsets must start at 0")
        check(int(self.offsets[-1]) == len(self.values), "offsets must end at the number of values")
        check(bool(np.all(np.diff(self.offsets) >= 0)), "offsets must not decrease")

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any] | NDArray[Any]], dtype: Any) -> Self:
        """Put rows end to end, as ``dtype``."""
        arrays = [np.asarray(row, dtype=dtype) for row in rows]
        lengths = [len(a) for a in arrays]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
        values = np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)
        return cls(values=values, offsets=offsets)

    @classmethod
    def concat(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, in order."""
        values = np.concatenate([p.values for p in parts])
        lengths = np.concatenate([p.lengths for p in parts])
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
        return cls(values=values, offsets=offsets)

    @property
    def lengths(self) -> Int64:
        """Length of each row."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Sequence[int] | Int64) -> Ragged:
        """The rows of these indices, in their order."""
        return Ragged.from_rows([self[int(i)] for i in indices], self.values.dtype)
