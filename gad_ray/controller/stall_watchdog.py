"""Warns once when no step has finished for too long: whoever waits for it cannot tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_LOOK_EVERY_S = 5.0


class StallWatchdog:
    """A context with a thread that looks at the time since the last step, and reports each long wait once.

    Args:
        report: Takes the seconds since the last step; True if it found them too many and said so.
        clock: Seconds that only go up.
    """

    def __init__(
        self, report: Callable[[float], bool], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._since: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def begin(self) -> None:
        """A step has ended, or a pause: the next is waited for from now on."""
        self._since = self._clock()

    def rest(self) -> None:
        """No step is waited for until :meth:`begin`."""
        self._since = None

    def look(self) -> None:
        """Report the wait if it is too long; once, until the next step."""
        since = self._since
        if since is not None and self._report(self._clock() - since) and self._since == since:
            self._since = None

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            self.look()
