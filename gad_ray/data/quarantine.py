"""Where rows go that are not used: one JSON line each, with file, line and reason, and a count of them all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from gad_ray.data.rows import Reason, Rejection
from gad_ray.errors import DataError

_EXAMPLES_KEPT = 5
_REASONS_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineReport:
    """How many rows were read and why some of them are not used.

    Attributes:
        path: The quarantine file; it exists, and is empty if nothing was quarantined.
        num_rows: Rows read, good and bad.
        counts: Reason → rows, the most frequent first.
        examples: Reason → its first few rejections.
    """

    path: Path
    num_rows: int
    counts: Mapping[Reason, int]
    examples: Mapping[Reason, tuple[Rejection, ...]]

    @property
    def num_quarantined(self) -> int:
        """Rows in the quarantine file."""
        return sum(self.counts.values())

    @property
    def num_unusable(self) -> int:
        """Quarantined rows that are at fault themselves, not merely held out."""
        return self.num_quarantined - self.counts.get(Reason.HELDOUT_PROMPT, 0)

    @property
    def unusable_fraction(self) -> float:
        """Share of the rows read that are unusable, in [0, 1]."""
        return self.num_unusable / self.num_rows if self.num_rows else 0.0

    def check_threshold(self, max_fraction: float) -> None:
        """Refuse data of which too much is unusable.

        Args:
            max_fraction: Largest share of unusable rows to accept, in [0, 1].

        Raises:
            DataError: With the counts, the foremost reasons with an example each, and the quarantine file.
        """
        if self.unusable_fraction <= max_fraction:
            return
        reasons = [reason for reason in self.counts if reason is not Reason.HELDOUT_PROMPT]
        told = [self._told(reason) for reason in reasons[:_REASONS_NAMED]]
        if len(reasons) > _REASONS_NAMED:
            told.append(f"and {len(reasons) - _REASONS_NAMED} more")
        raise DataError(
            f"{self.num_unusable} of {self.num_rows} rows ({self.unusable_fraction:.1%}) cannot be used; "
            f"max_quarantined_fraction is {max_fraction:g}: {'; '.join(told)}",
            where=str(self.path),
            hint="that file names every row with its reason: mend them, or raise data.max_quarantined_fraction",
        )

    def _told(self, reason: Reason) -> str:
        first = self.examples[reason][0]
        return f"{self.counts[reason]} × {reason} (first {first.place}: {first.detail})"


class Quarantine:
    """Writes rejections to a file as they come. A context manager; an older file is replaced.

    Args:
        path: The file to write; its directory is made if need be.

    Raises:
        DataError: On entering, if the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: Counter[Reason] = Counter()
        self._examples: dict[Reason, list[Rejection]] = {}

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        except OSError as error:
            raise DataError(
                f"the quarantine file cannot be written: {error.strerror or error}",
                where=str(self._path),
                hint="name a directory that can be written",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rejection: Rejection) -> None:
        """Write one rejection."""
        self._counts[rejection.reason] += 1
        examples = self._examples.setdefault(rejection.reason, [])
        if len(examples) < _EXAMPLES_KEPT:
            examples.append(rejection)
        entry = {
            "file": rejection.place.file,
            "line": rejection.place.number,
            "reason": rejection.reason,
            "detail": rejection.detail,
            "excerpt": rejection.excerpt,
        }
        # A lone surrogate has no UTF-8; "backslashreplace" makes it the \uXXXX that JSON itself has for it.
        self._file.write(
            json.dumps(entry, ensure_ascii=False).encode("utf-8", errors="backslashreplace") + b"\n"
        )

    def report(self, *, num_rows: int) -> QuarantineReport:
        """What has been quarantined so far.

        Args:
            num_rows: Rows read so far, good and bad.
        """
        return QuarantineReport(
            path=self._path,
            num_rows=num_rows,
            counts=dict(self._counts.most_common()),
            examples={reason: tuple(found) for reason, found in self._examples.items()},
        )
