"""How fast this machine multiplies: measured at a model's shape, once, and kept.

A product of a feed-forward layer stands for the model: it is where most of a pass is spent. Other work on the machine can
only lower a rate. What is compared is measured by turns, so that it lowers all alike, and of several rounds the best
counts: it is what the processor does when it is let.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeVar

from gad_ray.auto.kept import keep, kept, key_of
from gad_ray.config import Precision

K = TypeVar("K")

TOKENS = 256
"""Tokens of the product in which precisions are compared."""

PASS_TOKENS = (64, 128, 256, 512, 1024)
"""Sizes of a forward pass that are compared."""

_MAX_FLOP = 5e8
"""Of one product; of a larger layer only so many columns are multiplied. 50 ms at 10 GFLOP/s."""

_MAX_ROUNDS = 50
_BUDGET_S = 0.8


@dataclass(frozen=True, slots=True)
class Shape:
    """A product: [tokens, hidden] by [hidden, columns]."""

    tokens: int
    hidden: int
    columns: int

    @classmethod
    def of(cls, *, hidden: int, intermediate: int) -> Shape:
        """The product that stands for a model with these widths."""
        most = int(_MAX_FLOP / (2 * TOKENS * hidden))
        return cls(tokens=TOKENS, hidden=hidden, columns=max(1, min(intermediate, most)))

    @property
    def flop(self) -> int:
        """Multiplications and additions of one product."""
        return 2 * self.tokens * self.hidden * self.columns

    def __str__(self) -> str:
        return f"{self.tokens} × {self.hidden} × {self.columns}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """GFLOP/s of one product in each precision."""

    float32: float
    bfloat16: float

    @property
    def best(self) -> float:
        """Of the faster precision."""
        return max(self.float32, self.bfloat16)

    def __str__(self) -> str:
        return f"{self.bfloat16:.0f} GFLOP/s in bfloat16, {self.float32:.0f} in float32"


def kept_rates(shape: Shape, *, threads: int) -> Rates | None:
    """What was measured here before, of the same product by as many threads; None where nothing was."""
    found = kept("precision", _key(shape, threads))
    try:
        return Rates(**found) if found else None
    except TypeError:
        return None


def find_rates(shape: Shape, *, threads: int) -> Rates:
    """The rates of this machine's CPU: what is kept of them, or measured now, in about a second."""
    return kept_rates(shape, threads=threads) or keep_rates(shape, threads=threads)


def keep_rates(shape: Shape, *, threads: int) -> Rates:
    """Measure, and keep what was measured in place of what was kept."""
    rates = measure(shape, threads=threads)
    keep("precision", _key(shape, threads), asdict(rates))
    return rates


def find_pass_rates(
    shape: Shape,
    *,
    threads: int,
    precision: Precision,
    sizes: Sequence[int] = PASS_TOKENS,
    trains: bool = True,
) -> dict[int, float]:
    """GFLOP/s of passes of each size: what is kept, or measured now, in about a second.

    Args:
        shape: The product that stands for the model.
        threads: Of its process.
        precision: Of its passes.
        sizes: Tokens of a pass.
        trains: Whether a pass goes backward as well.
    """
    what = f"{'training' if trains else 'forward'}, {' '.join(map(str, sizes))}"
    key = key_of(f"{threads} threads", f"{shape.hidden} × {shape.columns}", precision, what)
    found = kept("passes", key)
    if set(found) != set(map(str, sizes)):
        rates = measure_passes(shape, threads=threads, precision=precision, sizes=sizes, trains=trains)
        keep("passes", key, found := {str(tokens): rate for tokens, rate in rates.items()})
    return {int(tokens): rate for tokens, rate in found.items()}


def measure(shape: Shape, *, threads: int) -> Rates:
    """Multiply in both precisions by turns; the best of each counts."""
    import torch

    with _threads(threads):
        generator = torch.Generator().manual_seed(0)
        given = torch.randn(shape.tokens, shape.hidden, generator=generator)
        weight = torch.randn(shape.columns, shape.hidden, generator=generator)

        def product(dtype: torch.dtype) -> Callable[[], object]:
            left, right = given.to(dtype), weight.to(dtype)
            return lambda: torch.nn.functional.linear(left, right)

        shortest = _shortest({"float32": product(torch.float32), "bfloat16": product(torch.bfloat16)})
    return Rates(**{name: shape.flop / seconds / 1e9 for name, seconds in shortest.items()})


def measure_passes(
    shape: Shape, *, threads: int, precision: Precision, sizes: Sequence[int], trains: bool
) -> dict[int, float]:
    """Take the same tokens through a layer in pieces of every size, by turns.

    Every size so has as much to do, and is disturbed as likely. In training each piece adds its gradient of the weights, as
    a pass does: it is what makes small ones slow.
    """
    import torch

    dtype, most = getattr(torch, precision), max(sizes)
    with _threads(threads):
        generator = torch.Generator().manual_seed(0)
        given = torch.randn(most, shape.hidden, generator=generator).to(dtype)
        weight = torch.randn(shape.columns, shape.hidden, generator=generator).to(dtype)
        gradient = torch.zeros_like(weight)

        def passes(tokens: int) -> Callable[[], object]:
            def run() -> None:
                for piece in given.split(tokens):
                    out = torch.nn.functional.linear(piece, weight)
                    if trains:
                        torch.mm(out, weight)
                        gradient.addmm_(out.T, piece)

            return run

        shortest = _shortest({tokens: passes(tokens) for tokens in sizes}, min_rounds=2)
    flop = (3 if trains else 1) * 2 * most * shape.hidden * shape.columns
    return {tokens: flop / seconds / 1e9 for tokens, seconds in shortest.items()}


def _shortest(work: Mapping[K, Callable[[], object]], *, min_rounds: int = 3) -> dict[K, float]:
    """Seconds of each at its best, all done by turns."""
    import torch

    shortest = dict.fromkeys(work, float("inf"))
    start = time.perf_counter()
    with torch.inference_mode():
        for rounds in range(_MAX_ROUNDS):
            if rounds >= min_rounds and time.perf_counter() - start > _BUDGET_S:
                break
            for name, do in work.items():
                began = time.perf_counter()
                do()
                shortest[name] = min(shortest[name], time.perf_counter() - began)
    return shortest


@contextmanager
def _threads(count: int) -> Generator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _key(shape: Shape, threads: int) -> str:
    return key_of(f"{threads} threads", str(shape))
