"""A command of ours in a process of its own, as a measurement runs it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

_GRACE_S = 120.0


def exit_code(
    command: Sequence[str], log: Path | None = None, *, deadline_s: float | None = None
) -> int | None:
    """Run a command to its end, also after Ctrl-C: that has reached it too, and it is saving its state.

    subprocess.run would kill it a quarter of a second after Ctrl-C.

    Args:
        command: Program and arguments.
        log: File for what it says; it says it here, and may ask here, when None.
        deadline_s: Seconds after which it is ended; None: it is waited for however long it takes.

    Returns:
        Its exit code; None if it had to be ended.
    """
    with (
        nullcontext() if log is None else log.open("wb") as file,
        subprocess.Popen(
            command,
            stdin=None if file is None else subprocess.DEVNULL,
            stdout=file,
            stderr=None if file is None else subprocess.STDOUT,
        ) as child,
    ):
        try:
            return child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            _end(child)
            return None
        except KeyboardInterrupt:
            child.wait()
            raise


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
