"""A run as its log tells it: what a diagnosis is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gad_ray.config import RunConfig
from gad_ray.health.facts import NO_FACTS, RunFacts, assumed_config
from gad_ray.health.phrases import say
from gad_ray.health.texts import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The metrics of one step, by registered name."""

    step: int
    stage: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the reader of a diagnosis must know of its source.

    Attributes:
        phrase: Key of what is said.
        values: What stands in its places.
    """

    phrase: str
    values: tuple[tuple[str, object], ...] = ()

    @classmethod
    def of(cls, phrase: str, **values: object) -> Note:
        """A note with its values."""
        return cls(phrase, tuple(values.items()))

    def text(self, language: Language) -> str:
        """What is said."""
        return say(self.phrase, language, **dict(self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A log that was read.

    Attributes:
        place: File or directory.
        kind: What it is.
        rows: The steps in order, at least one.
        numbered: Whether the log tells the steps' numbers.
        facts: What is known beside the metrics.
        config: The run's configuration, None if it is not known.
        waited_s: Seconds since the last step, of a run that has not ended.
        notes: What the reader must know.
    """

    place: str
    kind: Literal["run", "jsonl", "board", "verl"]
    rows: Sequence[Row]
    numbered: bool = True
    facts: RunFacts = NO_FACTS
    config: RunConfig | None = None
    waited_s: float | None = None
    notes: tuple[Note, ...] = ()

    @property
    def config_for_advice(self) -> RunConfig:
        """The run's configuration, or one of defaults and of what the log tells."""
        if self.config is not None:
            return self.config
        latest: dict[str, float] = {}
        for row in self.rows:
            latest.update(row.metrics)
        return assumed_config(self.facts, latest)
