"""The form of an answer, and what a line of text is."""

from __future__ import annotations

import re
from enum import StrEnum

from gad_ray.core.rewards import parsed_json

LIST_ITEM = re.compile(r"^\s*(?:[-*+•·]|\(?\d{1,3}[.)、]|[a-zA-Z][.)])\s+\S", re.MULTILINE)
FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+\S", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
TABLE_ROW = re.compile(r"^\s*\|.*\|\s*$", re.MULTILINE)
_TABLE_RULE = re.compile(r"^\s*\|?[\s:|-]*-{2,}[\s:|-]*\|[\s:|-]*$", re.MULTILINE)
_CODE_LINE = re.compile(
    r"[;{}]\s*$"
    r"|^\s*(?:def|class|import|from|return|if|elif|for|while|try|const|let|var|function|public|private|static)\b"
    r".*[:;(){}=]"
    r"|^\s*#include\b|^\s*(?:import|from)\s+[\w.]+(?:\s+import\b.*)?$"
    r"|^\s*</?[a-zA-Z!][^>]*>"
    r"|^\s*[\w.\[\]]+\s*(?:[+*/-]?=|\()[^=].*"
)


class Format(StrEnum):
    """The form of an answer, by its most telling mark."""

    JSON = "json"
    TABLE = "table"
    CODE = "code"
    LIST = "list"
    MARKDOWN = "markdown"
    PLAIN = "plain"


def format_of(text: str) -> Format:
    """The form of an answer: JSON as a whole, a table, code, a list, other markdown, or plain text. A heuristic."""
    body = text.strip()
    if body[:1] in {"{", "["} and parsed_json(body) == 1.0:
        return Format.JSON
    if len(TABLE_ROW.findall(body)) >= 2 and _TABLE_RULE.search(body):
        return Format.TABLE
    if FENCE.search(body) or _is_code(body):
        return Format.CODE
    if len(LIST_ITEM.findall(body)) >= 2:
        return Format.LIST
    if HEADING.search(body) or BOLD.search(body):
        return Format.MARKDOWN
    return Format.PLAIN


def _is_code(body: str) -> bool:
    lines = [line for line in body.splitlines() if line.strip()]
    hits = sum(_CODE_LINE.search(line) is not None for line in lines)
    return hits >= 2 and 2 * hits >= len(lines)
