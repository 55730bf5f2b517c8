"""SIGINT and SIGTERM: the first ends the run in good order, the second at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
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
    """A context that takes over SIGINT and SIGTERM, and says at once what comes of them.

    Args:
        say: Takes a line; may be called between any two instructions. Nothing is said when None.
        ending: What happens after a first signal that is not patient.

    Attributes:
        signal_number: The first signal that came, or None.
        patient: While True, a first signal lets the step that is under way end; else it stops every wait.
        abrupt: While True, a first signal raises :class:`Interrupted` wherever the program is: nothing has been started
            that must be stopped in good order.
    """

    def __init__(
        self,
        say: Callable[[str], None] | None = None,
        *,
        ending: str = "ending; what was started is stopped first",
    ) -> None:
        self._say = say
        self._ending = ending
        self.signal_number: int | None = None
        self.patient = False
        self.abrupt = False
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
        again, self.signal_number = self.signal_number is not None, self.signal_number or number
        if again:
            if self.patient and not self._urgent:
                self._tell(number, "leaving now")
            self._urgent = True
        elif self.patient:
            self._tell(
                number,
                "ending after the step that is under way, which is saved. To leave now and lose that step: Ctrl-C "
                "(or the signal) once more",
            )
        elif self.abrupt:
            raise Interrupted(number)
        else:
            self._tell(number, self._ending)

    def _tell(self, number: int, text: str) -> None:
        if self._say is not None:
            self._say(f"{signal.Signals(number).name}: {text}")
