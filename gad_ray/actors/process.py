"""What every actor process does first: threads, and a log file of its own."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path

_MIB = 2**20

_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * _MIB), "MALLOC_TRIM_THRESHOLD_": str(512 * _MIB)}
"""glibc gives what a forward pass frees back to the kernel, which has to clear the pages for the next one: on a CPU a sixth
of the pass. A process keeps up to so much of it; single blocks of 32 MiB and more, glibc's limit, go back as before."""


def runtime_env(*, threads: int) -> dict[str, dict[str, str]]:
    """Environment of an actor's process.

    Ray would set one OpenMP thread for a fraction of a CPU. Threads that wait must sleep: stages that take
    turns on the same cores are several times slower beside spinning ones.

    Args:
        threads: Of one operation.
    """
    return {
        "env_vars": {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            # Not at once: an update is thousands of operations, and waking a thread for each takes longer than some of them.
            "GOMP_SPINCOUNT": "10000",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            **_KEPT_MEMORY,
        }
    }


def redirect_output(path: Path) -> None:
    """Send this process's output, also that of native code, to a file, for errors to quote its tail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()


def log_tail(path: Path, *, lines: int = 15) -> str:
    """The last lines of an actor's log, or a note that there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log was written)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
