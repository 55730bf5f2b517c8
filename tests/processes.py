"""Which processes belong to a test: found by what they were started with and what they hold open."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

_POLL_S = 0.05


def wait_until(condition: Callable[[], object], *, what: str, deadline_s: float) -> None:
    """Poll until a condition holds; fail the test, naming what was waited for, if it never does."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {deadline_s:g} s in vain for {what}")
        time.sleep(_POLL_S)


def processes_of(place: Path) -> list[psutil.Process]:
    """All processes but this one that mention a directory.

    In their command line or environment, as their working directory, or with a file below it open. A Ray worker
    overwrites the first two when it sets its title, but keeps its log open.
    """
    own = os.getpid()
    found = [pid for pid in psutil.pids() if pid != own and _mentions(pid, str(place))]
    return [psutil.Process(pid) for pid in found if psutil.pid_exists(pid)]


def titled(place: Path, title: str) -> list[psutil.Process]:
    """Those of them whose command line has a text in it, as a Ray actor's has its class."""
    return [one for one in processes_of(place) if title in describe([one])]


def process_writing_to(log: Path) -> psutil.Process | None:
    """The process whose standard output is a file."""
    for pid in psutil.pids():
        if _link(Path(f"/proc/{pid}/fd/1")) == str(log):
            return psutil.Process(pid)
    return None


def describe(processes: list[psutil.Process]) -> str:
    """Process ids and command lines, a line each."""
    lines: list[str] = []
    for process in processes:
        try:
            lines.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        except psutil.NoSuchProcess:
            continue
    return "\n".join(lines)


def wait_until_gone(place: Path, *, deadline_s: float = 120.0) -> None:
    """Fail the test if processes that mention a directory go on living; they are ended first."""
    try:
        wait_until(lambda: not processes_of(place), what="the end of all processes", deadline_s=deadline_s)
    except AssertionError as error:
        left = processes_of(place)
        told = describe(left)
        for process in left:
            _kill(process)
        if told:
            raise AssertionError(f"processes of {place} were left running:\n{told}") from error


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def _mentions(pid: int, place: str) -> bool:
    folder = Path(f"/proc/{pid}")
    needle = place.encode()
    try:
        if any(needle in (folder / name).read_bytes() for name in ("cmdline", "environ")):
            return True
        links = [folder / "cwd", *(folder / "fd").iterdir()]
    except OSError:
        # It has just ended, or is a kernel thread or another user's.
        return False
    return any(_link(link).startswith(place) for link in links)


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
