"""A penalty for text that repeats itself."""

from __future__ import annotations


def no_repetition(text: str, *, ngram: int) -> float:
    """Share of distinct word n-grams minus one: 0 when none repeats, towards −1 when all do.

    Text shorter than one n-gram cannot repeat and gets 0. Text without spaces (Chinese, say) is taken
    character by character.
    """
    words = text.split()
    units: list[str] = words if len(words) > 1 else list(text.strip())
    grams = [tuple(units[i : i + ngram]) for i in range(len(units) - ngram + 1)]
    return len(set(grams)) / len(grams) - 1.0 if grams else 0.0
