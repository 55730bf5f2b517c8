"""The report of a run that is going: refreshed beside the steps, which never wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from gad_ray.report import write_report

_SHARE = 50.0
"""After a refresh, this many times as long as it took passes before the next."""


class LiveReport:
    """Writes the report in a thread of its own, one at a time, and at most so often.

    Not to be used by several threads.

    Args:
        root: The run's directory.
        refresh_s: Least seconds from the end of a refresh to the next; 0 for none but the last.
        write: Writes the report of a directory.
        clock: Seconds that only increase.
    """

    def __init__(
        self,
        root: Path,
        *,
        refresh_s: float,
        write: Callable[[Path], object] = write_report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._refresh_s = refresh_s
        self._write = write
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._trouble: str | None = None
        self._told: str | None = None
        self._next = -float("inf")

    def step_done(self) -> str | None:
        """Begin a refresh if one is due; the first comes with the first step.

        Returns:
            Why the last one failed, told once; None if it did not.
        """
        if self._thread is not None and self._thread.is_alive():
            return None
        news = self._news()
        if self._refresh_s > 0 and self._clock() >= self._next:
            # A daemon: a run that is to end at once does not wait for it. The file is replaced whole or not at all.
            self._thread = threading.Thread(target=self._refresh, name="report", daemon=True)
            self._thread.start()
        return news

    def finish(self) -> str | None:
        """Write the last report, with everything that the run has left behind.

        Returns:
            Why it failed, None if it did not.
        """
        if self._thread is not None:
            self._thread.join()
        self._refresh()
        return self._news()

    def _news(self) -> str | None:
        trouble, told = self._trouble, self._told
        self._told = trouble
        return trouble if trouble != told else None

    def _refresh(self) -> None:
        started = self._clock()
        try:
            self._write(self._root)
            self._trouble = None
        # The one border of its kind: whatever is wrong with a report, the run is worth more.
        except Exception as error:  # noqa: BLE001
            self._trouble = f"{type(error).__name__}: {error}"
        ended = self._clock()
        self._next = ended + max(self._refresh_s, _SHARE * (ended - started))
