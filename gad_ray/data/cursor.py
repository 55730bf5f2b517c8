"""The order in which prompts are drawn, and an exact position in it that can be saved and resumed.

Every epoch is a permutation of all rows, given by the seed and the number of the epoch alone, or what an
arrangement makes of it. Batches are always full and never repeat a row. Where the rows of an epoch run out within
a batch, the batch goes on with the next epoch; rows that it already holds are passed over there, and come first in
the batch after it. So every row is drawn exactly once an epoch, whatever the batch size, but for those that a
caller has skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeGuard, cast

from pydantic import JsonValue

from gad_ray.errors import CheckpointError, DataError

_STATE_KEYS = ("seed", "epoch", "position", "deferred", "num_rows", "ids_sha256")
_ORDER = "order"

Arrangement = Callable[[Sequence[int]], Sequence[int]]
"""From a permutation of all rows to the rows of an epoch, in the order in which they are drawn."""


class PromptCursor:
    """Draws batches of row indices.

    Args:
        ids: Id of every row, in the order of the rows. They identify the data when a run is resumed.
        seed: Seed of the order.
        batch_size: Rows a batch, at most ``len(ids)``.
        arrange: Called once at the beginning of every epoch; must leave a batch's rows at least. The order is then
            part of the state, because what it was made by may have changed. None: the permutation itself.

    Raises:
        DataError: If there are fewer rows than a batch takes.
    """

    def __init__(
        self, ids: Sequence[str], *, seed: int, batch_size: int, arrange: Arrangement | None = None
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if len(ids) < batch_size:
            raise DataError(
                f"a batch takes {batch_size} prompts, but there are {len(ids)} rows to train on",
                hint="make the batch smaller, or name more data: a batch never repeats a row",
            )
        self._seed = seed
        self._batch_size = batch_size
        self._num_rows = len(ids)
        self._ids_sha256 = _hash_of(ids)
        self._epoch = 0
        self._arrange = arrange
        self._order = self._order_of(0)
        self._position = 0
        """Rows of this epoch's order that have been drawn or deferred."""
        self._deferred: list[int] = []
        """Rows passed over at the start of this epoch, not drawn in it yet."""

    @property
    def epoch(self) -> float:
        """Epochs drawn so far, with their fraction: 1.5 is in the middle of the second."""
        return self._epoch + (self._position - len(self._deferred)) / len(self._order)

    @property
    def epoch_size(self) -> int:
        """Rows of the epoch under way."""
        return len(self._order)

    def next_batch(self, *, skip: Collection[int] = frozenset()) -> tuple[int, ...]:
        """Draw the indices of the next ``batch_size`` rows, all different.

        Args:
            skip: Rows that are left out of this epoch where their turn comes; at least a batch's are not.
        """
        return self.draw(self._batch_size, skip=skip)

    def draw(
        self, count: int, *, held: Collection[int] = (), skip: Collection[int] = frozenset()
    ) -> tuple[int, ...]:
        """Draw up to ``count`` further rows for a batch that holds some.

        Fewer come only if there are no others left that the batch does not hold.

        Args:
            count: Rows to draw.
            held: Rows that the batch has; they are passed over, and come first in the batch after it.
            skip: Rows that are left out of this epoch where their turn comes.
        """
        if len(skip) >= len(self._order):
            raise ValueError(f"all {len(self._order)} rows of the epoch would be skipped")
        batch: list[int] = []
        taken = set(held)
        passed_over: list[int] = []
        while len(batch) < count:
            if not self._deferred and self._position == len(self._order):
                if passed_over:  # they are of this epoch, which ends only when they are drawn
                    break
                self._start_next_epoch()
            index = self._take()
            if index in skip:
                continue
            if index in taken:
                passed_over.append(index)
            else:
                batch.append(index)
                taken.add(index)
        self._deferred = passed_over + self._deferred
        return tuple(batch)

    def _take(self) -> int:
        if self._deferred:
            return self._deferred.pop(0)
        self._position += 1
        return self._order[self._position - 1]

    def _start_next_epoch(self) -> None:
        self._epoch += 1
        self._order = self._order_of(self._epoch)
        self._position = 0

    def _order_of(self, epoch: int) -> Sequence[int]:
        plain = _permutation(self._num_rows, self._seed, epoch)
        return plain if self._arrange is None else self._arrange(plain)

    def state(self) -> dict[str, JsonValue]:
        """The position between two batches, as JSON values."""
        state: dict[str, JsonValue] = {
            "seed": self._seed,
            "epoch": self._epoch,
            "position": self._position,
            "deferred": list(self._deferred),
            "num_rows": self._num_rows,
            "ids_sha256": self._ids_sha256,
        }
        if self._arrange is not None:
            state[_ORDER] = list(self._order)
        return state

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, object],
        ids: Sequence[str],
        *,
        seed: int,
        batch_size: int,
        arrange: Arrangement | None = None,
    ) -> PromptCursor:
        """Go on where ``state`` was taken. The batch size may differ: no row is lost or drawn twice.

        Raises:
            CheckpointError: If the state was taken with other rows or another seed, or is damaged.
            DataError: If there are fewer rows than a batch takes.
        """
        cursor = cls(ids, seed=seed, batch_size=batch_size, arrange=arrange)
        cursor._restore(state)
        return cursor

    def _restore(self, state: Mapping[str, object]) -> None:
        keys = {*_STATE_KEYS, *([] if self._arrange is None else [_ORDER])}
        if set(state) != keys:
            raise _damaged(f"it has {sorted(state)}, not {sorted(keys)}")
        if state["ids_sha256"] != self._ids_sha256:
            raise CheckpointError(
                f"the training rows have changed: there were {state['num_rows']}, now {self._num_rows}, or other ids",
                where="data position",
                hint="resume with the data, held-out settings and limits of the run, or start a new run",
            )
        if state["seed"] != self._seed:
            raise CheckpointError(
                f"the run draws its prompts by data.seed={state['seed']}, not {self._seed}",
                where="data position",
                hint=f"resume with data.seed={state['seed']}, or start a new run",
            )
        epoch, position, deferred = state["epoch"], state["position"], state["deferred"]
        if not _is_count(epoch) or not _is_count(position) or position > self._num_rows:
            raise _damaged(f"epoch {epoch!r}, position {position!r} of {self._num_rows} rows")
        if not isinstance(deferred, list):
            raise _damaged(f"deferred is {deferred!r}, not a list")
        order = self._saved_order(state, epoch)
        if position > len(order):
            raise _damaged(f"position {position!r} of {len(order)} rows in the epoch")
        passed = set(order[:position])
        rows = [row for row in cast("list[object]", deferred) if _is_count(row) and row in passed]
        if rows != deferred or len(set(rows)) != len(rows):
            raise _damaged(f"deferred {deferred!r} names rows that cannot have been passed over")
        self._epoch, self._position, self._order, self._deferred = epoch, position, order, rows

    def _saved_order(self, state: Mapping[str, object], epoch: int) -> Sequence[int]:
        if self._arrange is None:
            return _permutation(self._num_rows, self._seed, epoch)
        order = state[_ORDER]
        given = cast("list[object]", order) if isinstance(order, list) else []
        rows = [row for row in given if _is_count(row) and row < self._num_rows]
        if rows != order or len(set(rows)) != len(rows) or len(rows) < self._batch_size:
            raise _damaged("the order of its epoch is none of these rows")
        return rows


def _permutation(num_rows: int, seed: int, epoch: int) -> list[int]:
    """A permutation that is the same on every platform and version: rows sorted by a hash, not by a generator."""

    def rank(row: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{epoch}:{row}".encode(), digest_size=16).digest()

    return sorted(range(num_rows), key=rank)


def _hash_of(ids: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for row_id in ids:
        encoded = row_id.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(
        f"the data position cannot be read: {what}",
        where="data position",
        hint="resume from another checkpoint",
    )
