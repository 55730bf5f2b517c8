"""Answers of health rules, taken to the learners of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import JsonValue

from gad_ray.actors.groups import ActorGroups
from gad_ray.config import RunConfig
from gad_ray.controller.progress import Progress
from gad_ray.health.answers import Answers, Change
from gad_ray.health.phrases import say


class AdaptiveSettings:
    """Has the learners follow what the rules change, and tells of it.

    Args:
        config: The run; without ``health.adaptive`` nothing is ever changed.
        groups: Its actors.
        progress: Knows which rules hold.
    """

    def __init__(self, config: RunConfig, *, groups: ActorGroups, progress: Progress) -> None:
        self._config = config
        self._groups = groups
        self._progress = progress
        self._answers = Answers(config, steps_per_epoch=progress.steps_per_epoch)

    @property
    def metrics(self) -> dict[str, float]:
        """How many changes were in force; nothing where there can be none."""
        return {} if self._config.health.adaptive is None else {"health/answers": float(len(self._answers))}

    def after_step(self, step: int) -> None:
        """Change what the rules that hold after a step ask for, and undo what none asks for any more."""
        if self._config.health.adaptive is None:
            return
        changes = self._answers.observe(step=step, held=self._progress.active_rules)
        if not changes:
            return
        self._hand_out()
        for change in changes:
            self._tell(change)

    def state(self) -> dict[str, JsonValue]:
        """What is in force, for a checkpoint."""
        return self._answers.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave; the learners follow, also back to settings that are no longer changed."""
        self._answers.load_state(state)
        if state:
            self._hand_out()

    def _hand_out(self) -> None:
        config = self._answers.config
        self._progress.take_settings(config)
        self._groups.take_settings(config)

    def _tell(self, change: Change) -> None:
        content = asdict(change)
        del content["undone"]
        self._progress.event("answer_undone" if change.undone else "answer_applied", **content)
        self._progress.info(
            say(
                "answer-undone" if change.undone else "answer-applied",
                self._config.health.language,
                step=change.step,
                rules=", ".join(change.rules),
                key=change.key,
                before=f"{change.before:g}",
                after=f"{change.after:g}",
            )
        )
