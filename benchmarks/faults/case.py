"""A case of the study: one run, what is done to it, and which alarms are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

NAN_FROM = 4
"""Step from which on a row of the critic's batch is not a number, where that is injected."""

SLEEP_AT, SLEEP_S = 7, 75.0
"""Step whose responses keep the run waiting, and seconds: the rule asks for more than 60."""

OTHER_TEMPERATURE = 0.6
"""At which the evaluation is sampled, where that is injected."""

Row = dict[str, str]
"""A row of data: ``id``, ``content`` and ``teacher_response``."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a run; without ``heldout`` the run draws its own from ``train``."""

    train: Sequence[Row]
    heldout: Sequence[Row] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run of the study.

    Attributes:
        name: Its name, and its run's.
        done: What is done to it, or in which way it is another healthy run, in a line.
        warmup: Steps of the warm-up.
        game: Steps of the adversarial stage.
        heldout: Prompts that are held out for evaluation.
        eval_every: Steps between evaluations; 0: at the ends of the stages alone.
        fitted: Whether the warm-up fits the policy to the teacher's text, as the healthy run does. Where it stands still,
            the sides stay apart, and what is wrong with the critic shows.
        overrides: ``key=value`` that do it.
        rows: The change of the data that does it.
        injection: Name of what does it inside the processes, where no setting and no data could.
        since: Stage in which it begins to tell, or the step.
        named_by: Rules any of which names the fault, the one that ought to first. Empty for a healthy run.
        refused_with: Words of the error that names it, where the run ends with one.
        quarantined: Reason under which the quarantine names it.
        symptoms: Rules that are right beside those, because what they say holds of such a run.
    """

    name: str
    done: str
    warmup: int = 8
    game: int = 16
    heldout: int = 0
    eval_every: int = 0
    fitted: bool = True
    overrides: tuple[str, ...] = ()
    rows: Callable[[Sequence[Row]], Rows] | None = None
    injection: str | None = None
    since: Literal["start", "game"] | int = "start"
    named_by: tuple[str, ...] = ()
    refused_with: str | None = None
    quarantined: str | None = None
    symptoms: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with the run."""
        return not (self.named_by or self.refused_with or self.quarantined)

    @property
    def begins(self) -> int:
        """The first step in which the fault can tell."""
        if self.since == "game":
            return self.warmup + 1
        return 1 if self.since == "start" else self.since

    @property
    def settings(self) -> tuple[str, ...]:
        """The ``key=value`` of its sizes and of what is done to it."""
        return (
            f"stages.warmup.steps={self.warmup}",
            f"stages.adversarial.steps={self.game}",
            f"data.heldout_prompts={self.heldout}",
            f"evaluation.every={self.eval_every}",
            *(() if self.fitted else ("stages.warmup.policy=frozen",)),
            *self.overrides,
        )
