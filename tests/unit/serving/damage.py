"""What can happen to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def _flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))


SPOILED: dict[str, Callable[[Path], object]] = {
    "flipped bit": _flip_bit,
    "cut file": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "no JSON": lambda file: file.write_text("{"),
}
"""How a file was damaged, and what does it."""
