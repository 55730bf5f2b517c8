"""SIGINT and SIGTERM: the first ends the run in good order, the second at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The run is to end now. Not an ``Exception``: nothing that handles failures may swallow it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process ended by this signal."""
        return 128 + self.signal_number


class StopRequest:
    """A context that takes over SIGINT and SIGTERM.

    Attributes:
        signal_number: The first signal that came, or None.
        patient: While True, a first signal lets the step that is under way end; else it stops every wait.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.patient = False
        self._urgent = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def listen(self) -> None:
        """Take the signals over once more, from a library that has put a handler of its own in place."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def check(self) -> None:
        """Raise :class:`Interrupted` if waiting has no point any more."""
        if self.signal_number is not None and (self._urgent or not self.patient):
            raise Interrupted(self.signal_number)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            self._urgent = True
        else:
            self.signal_number = number
