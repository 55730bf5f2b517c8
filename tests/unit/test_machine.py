"""Limits of containers count, and what cannot be read is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gad_ray import machine
from gad_ray.machine import Gpu


def test_a_cpu_quota_counts_below_the_affinity(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machine.usable_cores(cgroups=tmp_path) == 0.5


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cores(cgroups=tmp_path) == len(os.sched_getaffinity(0))


def test_a_memory_limit_counts_less_what_is_used(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    found = machine.memory(cgroups=tmp_path)
    assert (found.total, found.available) == (1_000_000, 600_000)


def test_without_control_groups_the_machines_memory_counts(tmp_path: Path) -> None:
    found = machine.memory(cgroups=tmp_path / "none")
    assert 0 < found.available <= found.total


def fake_nvidia_smi(directory: Path, script: str) -> None:
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_gpus_are_those_that_nvidia_smi_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    fake_nvidia_smi(tmp_path, "echo 'NVIDIA H100, 81559, 81000'; echo 'NVIDIA GB10, [N/A], [N/A]'")
    assert machine.gpus() == (
        Gpu(name="NVIDIA H100", total=81559 * 2**20, free=81000 * 2**20),
        Gpu(name="NVIDIA GB10", total=0, free=0),
    )
    fake_nvidia_smi(tmp_path, "echo 'no driver' >&2; exit 9")
    assert machine.gpus() == ()


def test_without_nvidia_smi_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == ()


@pytest.mark.parametrize("name", ["flags", "Features"])
def test_a_processor_names_itself_and_its_instructions(tmp_path: Path, name: str) -> None:
    processor = f"processor\t: 0\nmodel name\t: A Processor 3.0\n{name}\t\t: fpu avx2 amx_bf16\n"
    (tmp_path / "cpuinfo").write_text(f"{processor}\n{processor}")
    found = machine.cpu(cpuinfo=tmp_path / "cpuinfo")
    assert found == machine.Cpu(model="A Processor 3.0", flags=frozenset({"fpu", "avx2", "amx_bf16"}))


def test_a_processor_that_says_nothing_has_a_name_all_the_same(tmp_path: Path) -> None:
    found = machine.cpu(cpuinfo=tmp_path / "none")
    assert found.model
    assert found.flags == frozenset()


@pytest.mark.parametrize(
    ("answer", "found"),
    [("8.0\n9.0\n", (8.0, 9.0)), ("", ()), ("[N/A]\n", ()), ("Field is not a valid field to query\n", ())],
)
def test_compute_capabilities_are_those_that_nvidia_smi_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, found: tuple[float, ...]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.gpu_capabilities() == found


def test_memory_that_was_freed_goes_back_to_the_system() -> None:
    """In a process of its own: many small blocks, of which the last one stays, so that the heap cannot shrink by itself."""
    program = """
import psutil
from gad_ray.machine import returning_memory
blocks = [bytearray(b"x" * 65536) for _ in range(3000)]
resident = lambda: psutil.Process().memory_info().rss / 2**20
before = resident()
del blocks[:-1]
kept = resident()
with returning_memory():
    pass
print(before - kept, before - resident())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kept, returned = (float(number) for number in done.stdout.split())
    assert returned > 150 > 100 > kept


def test_hyper_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
    for usable, wanted in (({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 1}, 2), ({7, 8}, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, usable=usable: usable)
        assert machine.physical_cores(cpus=tmp_path) == wanted
