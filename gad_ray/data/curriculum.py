"""What a curriculum makes of an epoch: an order of its rows, fewer of them, or rows that are skipped for a while.

Rows are known by their index. What a curriculum has learned of them in the run is its state: JSON values that go
into checkpoints beside the position of the cursor.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import assert_never, cast

from pydantic import JsonValue

from gad_ray.config.curriculum import (
    CurriculumConfig,
    DifficultyCurriculum,
    GapCurriculum,
    SpreadCurriculum,
)
from gad_ray.data.cursor import Arrangement
from gad_ray.errors import CheckpointError, DataError

_NOTHING: frozenset[int] = frozenset()


class Curriculum:
    """Every epoch all rows, in random order; the others say what they do differently."""

    @property
    def arrangement(self) -> Arrangement | None:
        """What becomes of an epoch's permutation at its beginning; None: nothing."""
        return None

    def skipped(self, game_step: int) -> Collection[int]:
        """Rows that are not drawn at present.

        Args:
            game_step: Step of the adversarial stage, from 1 on; 0 or less in the warm-up.
        """
        del game_step
        return _NOTHING

    def observe(self, row: int, *, gap: float, has_spread: bool) -> None:
        """Take in what a step has shown of one of its prompts.

        Args:
            row: The prompt's row.
            gap: Mean of s_T − s_S over its responses.
            has_spread: Whether their rewards differ.
        """

    def state(self) -> dict[str, JsonValue]:
        """What it has learned, as JSON values."""
        return {}

    def load_state(self, state: Mapping[str, JsonValue]) -> None:
        """Take over what :meth:`state` gave.

        Raises:
            CheckpointError: If it is damaged, or another curriculum's.
        """
        if state:
            raise _damaged(sorted(state))


class ByDifficulty(Curriculum):
    """Rows in the order of a number that came with them; equal ones as the permutation has them."""

    def __init__(self, difficulty: Sequence[float], *, descending: bool) -> None:
        sign = -1.0 if descending else 1.0
        self._keys = [sign * value for value in difficulty]

    @property
    def arrangement(self) -> Arrangement:
        """Sorted, stably."""
        return lambda rows: sorted(rows, key=self._keys.__getitem__)


class ByGap(Curriculum):
    """Rows in the order of their mean gap so far, those without one first; fewer, if fewer are kept."""

    def __init__(self, num_rows: int, config: GapCurriculum, *, batch_size: int) -> None:
        self._config = config
        self._num_kept = math.ceil(config.keep * num_rows)
        if self._num_kept < batch_size:
            raise DataError(
                f"data.curriculum.keep = {config.keep} leaves {self._num_kept} of {num_rows} prompts, "
                f"and a step takes {batch_size}",
                hint="keep more, make prompts_per_step smaller, or name more data",
            )
        self._counts = [0] * num_rows
        self._sums = [0.0] * num_rows

    @property
    def arrangement(self) -> Arrangement:
        """Sorted by gap, cut to the share that is kept."""
        return self._arrange

    def _arrange(self, rows: Sequence[int]) -> Sequence[int]:
        sign = -1.0 if self._config.order == "descending" else 1.0

        def key(row: int) -> tuple[bool, float]:
            count = self._counts[row]
            return count > 0, sign * self._sums[row] / max(count, 1)

        kept = sorted(rows, key=key)[: self._num_kept]
        if not self._config.shuffle:
            return kept
        chosen = frozenset(kept)
        return [row for row in rows if row in chosen]

    def observe(self, row: int, *, gap: float, has_spread: bool) -> None:
        """Add to the row's mean."""
        del has_spread
        self._counts[row] += 1
        self._sums[row] += gap

    def state(self) -> dict[str, JsonValue]:
        """Number and sum of the gaps of every row."""
        return {"gap_counts": list(self._counts), "gap_sums": list(self._sums)}

    def load_state(self, state: Mapping[str, JsonValue]) -> None:
        """Take over what :meth:`state` gave."""
        counts, sums = state.get("gap_counts"), state.get("gap_sums")
        if not _are_numbers(counts, len(self._counts)) or not _are_numbers(sums, len(self._sums)):
            raise _damaged(sorted(state))
        self._counts = [int(count) for count in cast("list[int]", counts)]
        self._sums = [float(total) for total in cast("list[float]", sums)]


class SpreadFirst(Curriculum):
    """For a number of steps, rows whose latest group had no spread are skipped, while enough others are left."""

    def __init__(self, num_rows: int, *, phase_steps: int, batch_size: int) -> None:
        self._num_rows = num_rows
        self._phase_steps = phase_steps
        self._batch_size = batch_size
        self._without: set[int] = set()

    def skipped(self, game_step: int) -> Collection[int]:
        """Those without spread, in the phase."""
        enough = self._num_rows - len(self._without) >= self._batch_size
        return self._without if enough and 1 <= game_step <= self._phase_steps else _NOTHING

    def observe(self, row: int, *, gap: float, has_spread: bool) -> None:
        """Note whether the latest group had spread."""
        del gap
        (self._without.discard if has_spread else self._without.add)(row)

    def state(self) -> dict[str, JsonValue]:
        """The rows without spread."""
        return {"without_spread": cast("list[JsonValue]", sorted(self._without))}

    def load_state(self, state: Mapping[str, JsonValue]) -> None:
        """Take over what :meth:`state` gave."""
        rows = state.get("without_spread")
        if not _are_numbers(rows, None) or not set(cast("list[int]", rows)) <= set(range(self._num_rows)):
            raise _damaged(sorted(state))
        self._without = {int(row) for row in cast("list[int]", rows)}


def make_curriculum(
    config: CurriculumConfig | None, *, difficulty: Sequence[float], num_rows: int, batch_size: int
) -> Curriculum:
    """The curriculum that the configuration asks for.

    Args:
        config: Its settings; None: all rows in random order.
        difficulty: [num_rows] the rows' difficulty, where the curriculum goes by that.
        num_rows: Rows to train on.
        batch_size: Prompts that a step takes.

    Raises:
        DataError: If it leaves fewer prompts than a step takes.
    """
    match config:
        case None | DifficultyCurriculum(order="shuffled"):
            return Curriculum()
        case DifficultyCurriculum(order=order):
            return ByDifficulty(difficulty, descending=order == "descending")
        case GapCurriculum():
            return ByGap(num_rows, config, batch_size=batch_size)
        case SpreadCurriculum():
            steps = config.in_steps(num_prompts=num_rows, prompts_per_step=batch_size)
            return SpreadFirst(num_rows, phase_steps=steps, batch_size=batch_size)
        case _:
            assert_never(config)


def _are_numbers(value: JsonValue, length: int | None) -> bool:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        return False
    return all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)


def _damaged(keys: Sequence[str]) -> CheckpointError:
    return CheckpointError(
        f"what the curriculum has learned cannot be read: it has {', '.join(keys) or 'nothing'}",
        where="data position",
        hint="resume from another checkpoint",
    )
