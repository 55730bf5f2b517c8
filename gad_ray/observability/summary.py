"""The account of a run at its end: what changed on held-out prompts, samples, and what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from gad_ray.errors import DataError
from gad_ray.observability.jsonl import json_values

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """One quantity before and after training.

    Attributes:
        label: What was measured.
        before: Value before training, None if it was not taken.
        after: Value after training, None if it was not taken.
        better: Which direction is an improvement; None if neither is.
        unit: Shown after the value, e.g. ``tokens`` or ``%``.
        digits: Digits shown after the decimal point.
    """

    label: str
    before: float | None
    after: float | None
    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    digits: int = 3

    @property
    def improved(self) -> bool | None:
        """Whether training made it better; None where that has no answer."""
        if self.better is None or self.before is None or self.after is None or self.before == self.after:
            return None
        return (self.after > self.before) == (self.better == "higher")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One held-out prompt with the teacher's and the student's answers, in full, and the critic's scores.

    Scores compare only within one prompt.
    """

    prompt: str
    teacher: str
    before: str
    after: str
    teacher_score: float | None
    before_score: float | None
    after_score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What is told and kept at the end of a run.

    Attributes:
        name: The run's name.
        rows: Quantities on held-out prompts, before and after.
        samples: Some held-out prompts with all answers.
        paths: (label, path) of what was written, the exported model first.
        timing: Seconds by part of the run.
        peak_memory_gib: Largest memory of all processes together, None if it was not measured.
        note: What a reader of the table must know.
    """

    name: str
    rows: tuple[SummaryRow, ...]
    samples: tuple[SampleRow, ...]
    paths: tuple[tuple[str, str], ...]
    timing: Mapping[str, float] = field(default_factory=dict[str, float])
    peak_memory_gib: float | None = None
    note: str = ""

    def to_json(self) -> str:
        """The summary as JSON, texts in full; a value that is not finite becomes null."""
        content = {"format": _FORMAT, **asdict(self)}
        return json.dumps(json_values(content), ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RunSummary:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: If the text is no such summary.
        """
        try:
            content = json.loads(text)
            found = content.pop("format", None) if isinstance(content, dict) else None
            if found != _FORMAT:
                raise DataError(f"not a run summary of format {_FORMAT}: format is {found!r}")
            return TypeAdapter(cls).validate_python(content)
        except (json.JSONDecodeError, ValidationError) as error:
            raise DataError(f"not a run summary: {error}") from None
