"""Marks on the surface of a text: what a discriminator can go by that never reads a word."""

from __future__ import annotations

import re

import numpy as np

from gad_ray.batch import Float32
from gad_ray.core.rewards import no_repetition
from gad_ray.quality.formats import BOLD, FENCE, HEADING, LIST_ITEM, TABLE_ROW

LENGTH_FEATURES = ("log length", "log length, squared")
"""What the length-only discriminator sees. The square lets a preferred length in the middle be found."""

SURFACE_FEATURES = (
    "ends with a full stop",
    "ends with a question or exclamation mark",
    "ends with a letter or digit",
    "ends with a bracket, quote or fence",
    "begins with a capital letter",
    "begins with blanks",
    "ends with blanks",
    "begins with an interjection (Sure, Certainly, …)",
    "share of capital letters",
    "share of digits",
    "share of blanks",
    "share of non-ASCII characters",
    "commas per character",
    "full stops per character",
    "colons and semicolons per character",
    "question and exclamation marks per character",
    "straight quotes per character",
    "curly quotes per character",
    "long dashes per character",
    "brackets per character",
    "line breaks per character",
    "empty lines per character",
    "share of lines that are list items",
    "share of lines that are table rows",
    "has a heading",
    "has bold text",
    "has a code fence",
    "has inline code",
    "has emoji",
    "mean word length",
    "characters per sentence (log)",
    "repeated 4-grams",
)
"""What the surface-only discriminator sees: rates and shares, so that length itself does not enter."""

_FULL_STOP = re.compile(r"[.。…]$")
_ASKING = re.compile(r"[?!？！]$")
_CLOSING = re.compile(r"[)\]}>\"'”’»`）】」』]$")
_INTERJECTION = re.compile(
    r"\s*(?:Sure|Certainly|Of course|Absolutely|Great|Okay|OK|Yes|No|I'm sorry|I am sorry|Sorry|As an AI|Here(?:'s| is| are)"
    r"|当然|好的|作为)\b",
    re.IGNORECASE,
)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_SENTENCE_END = re.compile(r"[.!?。！？]+")


def length_features(length: int) -> Float32:
    """[2] features of an answer's length, in whatever unit it is measured."""
    value = np.log1p(length)
    return np.array([value, value * value], dtype=np.float32)


def surface_features(text: str) -> Float32:
    """[len(SURFACE_FEATURES)] features of a text; all zero for an empty one but for what an end is."""
    body = text.strip()
    size = max(1, len(text))
    lines = text.splitlines() or [""]
    letters = max(1, sum(map(str.isalpha, text)))
    words = body.split()

    def rate(characters: str) -> float:
        return sum(text.count(character) for character in characters) / size

    values = (
        _FULL_STOP.search(body) is not None,
        _ASKING.search(body) is not None,
        body[-1:].isalnum(),
        _CLOSING.search(body) is not None,
        body[:1].isupper(),
        text[:1].isspace(),
        text[-1:].isspace(),
        _INTERJECTION.match(text) is not None,
        sum(map(str.isupper, text)) / letters,
        sum(map(str.isdigit, text)) / size,
        sum(map(str.isspace, text)) / size,
        0.0 if text.isascii() else sum(character > "\x7f" for character in text) / size,
        rate(",，、"),
        rate(".。"),
        rate(":;：；"),
        rate("?!？！"),
        rate("\"'"),
        rate("“”‘’"),
        rate("—–"),
        rate("()[]{}（）"),
        rate("\n"),
        text.count("\n\n") / size,
        len(LIST_ITEM.findall(text)) / len(lines),
        len(TABLE_ROW.findall(text)) / len(lines),
        HEADING.search(text) is not None,
        BOLD.search(text) is not None,
        FENCE.search(text) is not None,
        _INLINE_CODE.search(text) is not None,
        _EMOJI.search(text) is not None,
        sum(map(len, words)) / max(1, len(words)),
        np.log1p(len(body) / max(1, len(_SENTENCE_END.findall(body)))),
        -no_repetition(body, ngram=4),
    )
    return np.array(values, dtype=np.float32)
