"""How many tokens a forward pass of training computes: ``micro_batch_tokens``.

Rows go end to end, so that a larger pass costs nothing but memory, and above some size wins nothing. On a CPU that size
is measured; on a GPU it is large, and memory decides.
"""

from __future__ import annotations

from collections.abc import Mapping

from gad_ray.auto.choice import SLOW, Came, Choice

MOST = 16384
"""Tokens of a pass, where nothing speaks for fewer."""

_AS_FAST = 0.95
"""Share of the best rate from which a size counts as fast."""

_SHARE = 1 / 8
"""Share of main memory that the activations of policy and critic may take, each."""

_STEP = 1024
"""On a GPU sizes are multiples of this, and no smaller."""


def by_rates(rates: Mapping[int, float], *, memory: int, per_token: int | None) -> tuple[int, str]:
    """The smallest size that is about as fast as any, if its activations fit; and why.

    Args:
        rates: Size → GFLOP/s.
        memory: The machine's, in bytes, over the processes that train this model.
        per_token: Bytes of activations; None where they are not known.
    """
    best = max(rates.values())
    fast = min(tokens for tokens, rate in rates.items() if rate >= _AS_FAST * best)
    told = ", ".join(f"{tokens}: {rate:.0f}" for tokens, rate in sorted(rates.items()))
    told = f"GFLOP/s of passes by their tokens, {told}"
    if per_token is None:
        return fast, told
    fits = [tokens for tokens in sorted(rates) if tokens * per_token <= _SHARE * memory]
    most = fits[-1] if fits else min(rates)
    if fast <= most:
        return fast, told
    return most, f"{told}; memory bounds it, at {per_token / 2**20:.1f} MiB a token"


def by_memory(*, card: int, fixed: int, per_token: int) -> tuple[int, str]:
    """As many tokens as a GPU has memory for; and why.

    Args:
        card: Bytes that the process may take.
        fixed: Bytes that it takes beside the passes.
        per_token: Bytes of activations.
    """
    room = (0.9 * card - fixed) / per_token
    tokens = min(MOST, max(_STEP, int(room) // _STEP * _STEP))
    told = f"{fixed / 2**30:.1f} GiB of a GPU's {card / 2**30:.0f}, and {per_token / 2**20:.2f} MiB for each token"
    return tokens, told if room >= _STEP else f"{told}: memory is short"


def set_tokens(key: str, asked: int, *, came: Came, rates: Mapping[int, float] | None, best: int) -> Choice:
    """The verdict on a size that is set.

    Args:
        key: The setting.
        asked: What it says.
        came: Whether it was set, or comes from the run that is resumed.
        rates: Size → GFLOP/s; None where nothing was measured.
        best: What ``auto`` takes.
    """
    if rates is None:
        return Choice(key=key, taken=asked, came=came)
    # The largest measured size that is no larger: a smaller one still would be slower.
    near = max((tokens for tokens in rates if tokens <= asked), default=min(rates))
    if near == best:
        return Choice(key=key, taken=asked, came=came)
    told = f"{rates[near]:.0f} GFLOP/s in passes of {near} tokens, {rates[best]:.0f} in ones of {best}"
    slow = told if rates[best] >= SLOW * rates[near] else None
    return Choice(key=key, taken=asked, came=came, reason=told, slow=slow, better=str(best))
