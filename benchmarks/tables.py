"""Tables of measurements as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        table: Rows of text, the head first.
    """
    head, *rows = table
    return "\n".join([_line(head), _line(["---"] * len(head)), *map(_line, rows)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
