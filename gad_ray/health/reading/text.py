"""Logs of text: one JSON object a line, or what verl prints on the console."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from gad_ray.errors import DataError
from gad_ray.health.facts import parse_facts
from gad_ray.health.history import Note
from gad_ray.health.reading.names import STEP_NAMES, number
from gad_ray.health.reading.rows import LogLine, ReadLog

_SNIFFED_BYTES = 65536

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")

_VERL_STEP = re.compile(r"(?<![\w/])step:\s*(\d+) - (?=\S[^:]*:)")
"""``step:12 - critic/d_acc:0.93 - …``, behind whatever Ray, a progress bar or a logger put before it."""

_VERL_FIELD = re.compile(
    r"(?P<name>\S.*?):(?:(?:np\.)?\w+\()?(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|[-+]?inf)"
)
"""One field. Only the value's beginning counts: another actor's output may be glued to its end."""


def read_text(path: Path) -> tuple[Literal["jsonl", "verl"], ReadLog]:
    """Read a metrics file of JSON lines, or the console log of a verl run.

    Raises:
        DataError: If the file is empty, no text, or neither of the two.
    """
    reader = _Reader(where=str(path))
    try:
        with path.open("rb") as file:
            if b"\0" in file.read(_SNIFFED_BYTES):
                raise _foreign(path, "it is a binary file")
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line_number, line in enumerate(lines, start=1):
                reader.take(line_number, line)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path") from None
    if reader.num_lines == 0:
        raise DataError(
            "the file is empty: no step was logged",
            where=str(path),
            hint="wait for the first step, or read the run's logs for why there was none",
        )
    if not reader.log.lines:
        raise _foreign(path, f"none of its {reader.num_lines} lines tells of a step: {reader.first_line!r}")
    return reader.finish()


@dataclass(slots=True)
class _Reader:
    """Takes the lines of a text one by one."""

    where: str
    log: ReadLog = field(default_factory=ReadLog)
    num_lines: int = 0
    num_verl: int = 0
    first_line: str = ""
    unread: list[int] = field(default_factory=list[int])
    cut: bool = False

    def take(self, line_number: int, line: str) -> None:
        self.cut = not line.endswith("\n")
        text = _ANSI.sub("", line).strip()
        if not text:
            return
        self.num_lines += 1
        self.first_line = self.first_line or text[:60]
        if text.startswith("{") and (content := _json_object(text)) is not None:
            self._take_row(content)
        elif (match := _VERL_STEP.search(text)) is not None:
            self.num_verl += 1
            self.log.lines.append(LogLine(int(match[1]), None, _verl_fields(text[match.end() :])))
        else:
            self.unread.append(line_number)

    def finish(self) -> tuple[Literal["jsonl", "verl"], ReadLog]:
        """What was read, with what the reader must know of it."""
        if self.num_verl:
            # All else on a console is chatter. A line without an end that says less than the one before was cut.
            lines = self.log.lines
            if self.cut and len(lines) > 1 and len(lines[-1].values) < len(lines[-2].values):
                lines.pop()
                self.log.notes.append(Note.of("truncated-line"))
            return "verl", self.log
        if self.unread and self.cut:
            self.unread.pop()
            self.log.notes.append(Note.of("truncated-line"))
        if self.unread:
            self.log.notes.append(Note.of("left-out-lines", count=len(self.unread), first=self.unread[0]))
        return "jsonl", self.log

    def _take_row(self, content: Mapping[str, Any]) -> None:
        if "facts" in content:
            self.log.facts = parse_facts(content["facts"], where=self.where)
        values = _flatten(content)
        step = next((int(s) for name in STEP_NAMES if (s := number(values.get(name))) is not None), None)
        stage = content.get("stage")
        time = number(content.get("time"))
        self.log.last_time = time if time is not None else self.log.last_time
        told = {name: v for name, v in values.items() if name not in {*STEP_NAMES, "stage", "time"}}
        if told:
            self.log.lines.append(LogLine(step, stage if isinstance(stage, str) else None, told))


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        content: object = json.loads(text)
    except ValueError:
        return None
    return cast("dict[str, Any]", content) if isinstance(content, dict) else None


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Groups within groups as one name with strokes; what verl's file logger wraps in ``data`` stands by itself."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if not isinstance(value, dict):
            flat.setdefault(prefix + name, value)
        elif name == "nonfinite" and not prefix:
            # Our own files say there what a null stands for.
            flat |= cast("dict[str, Any]", value)
        elif name != "facts" or prefix:
            inner = "" if name == "data" and not prefix else f"{prefix}{name}/"
            flat |= _flatten(cast("dict[str, Any]", value), inner)
    return flat


def _verl_fields(text: str) -> dict[str, float]:
    matches = (_VERL_FIELD.match(part.strip()) for part in text.split(" - "))
    return {match["name"]: float(match["value"]) for match in matches if match is not None}


def _foreign(path: Path, found: str) -> DataError:
    return DataError(
        f"not a log that can be judged: {found}",
        where=str(path),
        hint="give a run, a metrics file of one JSON object a line, a TensorBoard directory, or verl's console log "
        "(step:12 - critic/d_acc:0.93 - …)",
    )
