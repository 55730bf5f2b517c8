"""What a run of the study leaves: alarms, an error, quarantined rows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gad_ray.observability.jsonl import read_lines
from gad_ray.observability.run_dir import RunDirectory

_ERROR = re.compile(r"^error: (.*)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A health rule that began to hold."""

    rule: str
    severity: str
    stage: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What there is to judge a case by.

    Attributes:
        exit_code: Of the command; None if it did not end in time.
        seconds: From its start to its end.
        steps: Steps done.
        alarms: In the order in which they were raised.
        error: With which the command ended, empty if with none.
        quarantined: Reason → rows.
    """

    exit_code: int | None
    seconds: float
    steps: int
    alarms: tuple[Alarm, ...]
    error: str
    quarantined: dict[str, int]

    @classmethod
    def of_run(cls, directory: RunDirectory, log: Path, *, exit_code: int | None, seconds: float) -> Evidence:
        """Read it from a run's directory and from what the command said."""
        said = _ERROR.search(log.read_text(encoding="utf-8", errors="replace"))
        return cls(
            exit_code=exit_code,
            seconds=seconds,
            steps=len(read_lines(directory.metrics_jsonl).rows),
            alarms=tuple(
                Alarm(rule=e["rule"], severity=e["severity"], stage=e["stage"], step=e["step"])
                for e in read_lines(directory.events_jsonl).rows
                if e["event"] == "health"
            ),
            error=said[1].strip() if said else "",
            quarantined=dict(Counter(row["reason"] for row in read_lines(directory.quarantine_jsonl).rows)),
        )

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> Evidence:
        """What :meth:`to_json` gave."""
        alarms = tuple(Alarm(**alarm) for alarm in content["alarms"])
        return cls(**{name: value for name, value in content.items() if name != "alarms"}, alarms=alarms)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)
