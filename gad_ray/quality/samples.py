"""Rows that are shown: where they stand and how they begin and end; a few of many, drawn the same way every time."""

from __future__ import annotations

import heapq
import re
import zlib
from dataclasses import dataclass

_HALF = 140
_PER_KIND = 5
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A row that shows what a finding means.

    Attributes:
        place: File and line or row.
        prompt: Beginning and end of what the user said last.
        answer: Beginning and end of the answer that it is about; empty where it is about the prompt.
        note: What was found in it.
    """

    place: str
    prompt: str
    answer: str
    note: str


def shorten(text: str) -> str:
    """A text's beginning and end, with what cannot be seen written out as code points, so that it does no harm."""
    if len(text) > 2 * _HALF + 5:
        text = f"{text[:_HALF].rstrip()} […] {text[-_HALF:].lstrip()}"
    return _UNSHOWN.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text)


class SampleBox:
    """Counts what is put in and keeps a few, as if drawn at random, whatever the order of the files."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[tuple[int, int, Sample]] = []

    def add(self, place: str, prompt: str, answer: str, note: str) -> None:
        """Count one, and keep it if the draw falls on it."""
        self.count += 1
        rank = -zlib.crc32(place.encode("utf-8", "surrogatepass"))
        if len(self._kept) == _PER_KIND and rank < self._kept[0][0]:
            return
        sample = Sample(place=place, prompt=shorten(prompt), answer=shorten(answer), note=shorten(note))
        push = heapq.heappush if len(self._kept) < _PER_KIND else heapq.heapreplace
        push(self._kept, (rank, self.count, sample))

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Those kept."""
        return tuple(sample for _, _, sample in sorted(self._kept, reverse=True))
