"""What this machine has for a process to use: cores, memory, shared memory, GPUs. Limits of containers count."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
_CPUINFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_NVIDIA_SMI_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Main memory in bytes, as far as this process may use it."""

    total: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU; its memory in bytes."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A processor as it names itself, and the sets of instructions that it has."""

    model: str
    flags: frozenset[str]


def cpu(*, cpuinfo: Path = _CPUINFO) -> Cpu:
    """This machine's processor; without flags where nothing lists them."""
    entries: dict[str, str] = {}
    for line in _lines(cpuinfo):
        name, _, value = line.partition(":")
        entries.setdefault(name.strip(), value.strip())
    return Cpu(
        model=entries.get("model name") or platform.processor() or platform.machine(),
        flags=frozenset((entries.get("flags") or entries.get("Features") or "").split()),
    )


def share_of_cores(count: int) -> int:
    """Threads for each of ``count`` processes that compute at the same time."""
    return max(1, len(os.sched_getaffinity(0)) // count)


def physical_cores(*, cpus: Path = _CPUS) -> int:
    """Cores of this process's affinity, those that are hyper-threads of one core counted once."""
    siblings = {
        tuple(_lines(cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list")) or (str(cpu),)
        for cpu in os.sched_getaffinity(0)
    }
    return len(siblings)


def usable_cores(*, cgroups: Path = CGROUPS) -> float:
    """Cores that this process may use: by its affinity, and by the CPU quota of its container."""
    cores = float(len(os.sched_getaffinity(0)))
    for directory in _own_cgroups(cgroups):
        quota = _words(directory / "cpu.max")
        if len(quota) == 2 and quota[0] != "max":
            cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def memory(*, cgroups: Path = CGROUPS) -> Memory:
    """Main memory that this process may use: the machine's, or what its container leaves of it."""
    import psutil

    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for directory in _own_cgroups(cgroups):
        limit, used = _words(directory / "memory.max"), _words(directory / "memory.current")
        if limit and limit[0] != "max":
            total = min(total, int(limit[0]))
            available = min(available, max(0, int(limit[0]) - int(used[0] if used else 0)))
    return Memory(total=total, available=available)


@contextlib.contextmanager
def returning_memory() -> Generator[None]:
    """What the block has freed goes back to the operating system, for processes that take turns with this one.

    The GNU C library keeps it otherwise: half of what an update has used for activations and gradients. On other systems
    nothing is done.
    """
    try:
        yield
    finally:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def shared_memory() -> Memory | None:
    """The size of /dev/shm, in which Ray keeps its objects; None where there is none."""
    try:
        usage = shutil.disk_usage("/dev/shm")  # noqa: S108 - it is not ours, only looked at
    except OSError:
        return None
    return Memory(total=usage.total, available=usage.free)


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that nvidia-smi lists; none where it is missing or fails."""
    return tuple(_gpu(line) for line in _nvidia_smi("name,memory.total,memory.free"))


def gpu_capabilities() -> tuple[float, ...]:
    """Compute capability of each GPU, as 8.0; none where nvidia-smi does not tell."""
    try:
        return tuple(float(line) for line in _nvidia_smi("compute_cap"))
    except ValueError:
        return ()


def _nvidia_smi(query: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_NVIDIA_SMI_DEADLINE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line.strip()]


def _gpu(line: str) -> Gpu:
    name, total, free = (part.strip() for part in line.rsplit(",", 2))
    return Gpu(name=name, total=_mebibytes(total), free=_mebibytes(free))


def _mebibytes(text: str) -> int:
    """0 where the driver says nothing: some GPUs share the machine's memory and report "[N/A]"."""
    return int(text) * 2**20 if text.isdecimal() else 0


def _own_cgroups(root: Path) -> Iterator[Path]:
    """The control groups (v2) that this process is in, from its own up to the root."""
    entries = [line.split(":", 2) for line in _lines(Path("/proc/self/cgroup"))]
    own = next((entry[2] for entry in entries if entry[0] == "0"), "/")
    directory = root / own.strip().lstrip("/")
    while directory != root and root in directory.parents:
        yield directory
        directory = directory.parent
    yield root


def _words(path: Path) -> list[str]:
    lines = _lines(path)
    return lines[0].split() if lines else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
