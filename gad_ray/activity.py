"""What goes on at the moment, told in lines where nothing else shows it.

A command opens a :class:`Teller`; whatever takes time, anywhere below, says so: ``with activity("loading models")``. That is a
line when it begins, and one more whenever nothing was said for half a minute, with what is waited for. Where no Teller is
open, as in a program that uses GAD-Ray as a library, nothing is said.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Literal, ParamSpec, Self, TypeVar

from gad_ray.errors import printable

P = ParamSpec("P")
R = TypeVar("R")

_SILENCE_S = 30.0
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Begun:
    text: str
    since: float


@dataclass(frozen=True, slots=True)
class _Wait:
    describe: Callable[[], str]
    since: float


class Teller:
    """A context in which what goes on is told.

    Args:
        say: Takes one line.
        every_s: Longest silence while something goes on.
        clock: Seconds that only go up.

    Attributes:
        shown: While True, somebody shows all the time what goes on: only urgent lines are said.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        every_s: float = _SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.RLock()
        self._begun: list[_Begun] = []
        self._loose: _Begun | None = None
        self._waits: list[_Wait] = []
        self._said_at = clock()
        # A signal's handler may put something in at any moment, in between any two instructions.
        self._urgent: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="teller", daemon=True)
        self._outer: Teller | None = None
        self.shown = False

    def __enter__(self) -> Self:
        global _current
        self._outer, _current = _current, self
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        _current = self._outer
        self._urgent.put(None)
        self._thread.join()

    @contextmanager
    def activity(self, text: str, *, told: bool = True) -> Generator[None]:
        """Something goes on for the length of this context.

        Args:
            text: What, as in "loading models".
            told: Whether it is a line of its own when it begins.
        """
        one = _Begun(text, self._clock())
        with self._lock:
            self._begun.append(one)
        self._tell(text if told else None)
        try:
            yield
        finally:
            with self._lock:
                self._begun.remove(one)

    def doing(self, text: str | None, *, told: bool = True) -> None:
        """Something goes on until the next call; None: nothing does."""
        with self._lock:
            self._loose = None if text is None else _Begun(text, self._clock())
        self._tell(text if told else None)

    @contextmanager
    def waiting(self, describe: Callable[[], str]) -> Generator[None]:
        """For the length of this context, somebody waits for what ``describe`` tells at each moment."""
        one = _Wait(describe, self._clock())
        with self._lock:
            self._waits.append(one)
        try:
            yield
        finally:
            with self._lock:
                self._waits.remove(one)

    def heard(self) -> None:
        """Somebody has just said something: silence begins anew."""
        self._said_at = self._clock()

    def say_soon(self, text: str) -> None:
        """Say something at once, from a thread of its own: what a signal's handler may call."""
        self._urgent.put(text)

    def now(self) -> tuple[str, float, str] | None:
        """What goes on, for how many seconds, and what is waited for ("" where that is nothing); None where nothing is."""
        with self._lock:
            begun = self._begun[-1] if self._begun else self._loose
            wait = self._waits[-1] if self._waits else None
        if begun is None:
            return None
        told = "" if wait is None else f"{_clock_of(self._clock() - wait.since)} for {wait.describe()}"
        return begun.text, self._clock() - begun.since, told

    def look(self) -> None:
        """Say what goes on if nothing was said for too long."""
        if self.shown or self._clock() - self._said_at < self._every_s or (now := self.now()) is None:
            return
        text, seconds, wait = now
        self._speak(f"still {text}: {_clock_of(seconds)} so far" + (f"; waiting {wait}" if wait else ""))

    def _tell(self, text: str | None) -> None:
        if text is not None and not self.shown:
            self._speak(text)

    def _speak(self, text: str) -> None:
        self.heard()
        self._say(printable(text))

    def _work(self) -> None:
        while True:
            try:
                text = self._urgent.get(timeout=_LOOK_EVERY_S)
            except Empty:
                self.look()
                continue
            if text is None:
                return
            self._speak(text)


_current: Teller | None = None


def current() -> Teller | None:
    """The Teller that is open, if one is."""
    return _current


def telling(to: Literal["stdout", "stderr"] = "stderr") -> Teller:
    """A Teller that writes lines.

    Args:
        to: Where to; by standard error, a command's results stay alone on standard output.
    """

    def say(line: str) -> None:
        try:
            # Looked up each time: rich puts itself in their place while it shows a live line.
            file = sys.stdout if to == "stdout" else sys.stderr
            file.write(f"{line}\n")
            file.flush()
        except (OSError, ValueError):
            pass  # Nobody listens any more, which must not end the work.

    return Teller(say)


def tells(command: Callable[P, R]) -> Callable[P, R]:
    """Have a command tell on standard error what goes on in it."""

    @wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        with telling():
            return command(*args, **kwargs)

    return told


@contextmanager
def activity(text: str, *, told: bool = True) -> Generator[None]:
    """Something goes on for the length of this context; see :meth:`Teller.activity`."""
    if _current is None:
        yield
        return
    with _current.activity(text, told=told):
        yield


def doing(text: str | None, *, told: bool = True) -> None:
    """Something goes on until the next call; see :meth:`Teller.doing`."""
    if _current is not None:
        _current.doing(text, told=told)


@contextmanager
def waiting(describe: Callable[[], str]) -> Generator[None]:
    """Somebody waits for the length of this context; see :meth:`Teller.waiting`."""
    if _current is None:
        yield
        return
    with _current.waiting(describe):
        yield


def _clock_of(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
