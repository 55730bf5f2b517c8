"""Health rules that apply their own advice: within bounds, for as long as their cause lasts.

::

    rules that hold ─► Answers.observe ─► changes of settings ─► the learners, an event, the live line

Only settings that a learner takes over while it runs are changed. A run's checkpoint keeps what is in force.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue

from gad_ray.config import RunConfig, StrictModel
from gad_ray.config.health import AdaptiveAnswers
from gad_ray.health.facts import facts_of
from gad_ray.health.rules import RULES, Rule

Setting = float | int
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting that was changed, or put back.

    Attributes:
        step: The step after which this was done.
        rules: The rules that asked for it.
        key: Dotted key of the setting.
        before: Its value until then.
        after: Its value from the next step on.
        undone: Whether the run's own value was put back because the cause is gone.
    """

    step: int
    rules: tuple[str, ...]
    key: str
    before: Setting
    after: Setting
    undone: bool


class _InForce(StrictModel):
    """A change that was not undone yet."""

    rules: tuple[str, ...]
    value: Setting
    since: int
    calm: int = 0


class Answers:
    """Keeps the changes in force, makes new ones, and undoes them.

    Args:
        config: The run's own settings, with bounds and patience under ``health.adaptive``.
        steps_per_epoch: Steps that take the prompts once around, for rules with a window of an epoch.
        rules: The table of rules.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        steps_per_epoch: int | None = None,
        rules: Collection[Rule] = RULES,
    ) -> None:
        self._own = config
        self._settings = config.health.adaptive or AdaptiveAnswers()
        self._steps_per_epoch = steps_per_epoch
        self._rules = tuple(rules)
        self._bounds = config.adjustable
        self._in_force: dict[str, _InForce] = {}

    def __len__(self) -> int:
        return len(self._in_force)

    @property
    def config(self) -> RunConfig:
        """The run's settings with the changes that are in force."""
        config = self._own
        for key, answer in self._in_force.items():
            config = _with(config, key.split("."), answer.value)
        return config

    def observe(self, *, step: int, held: Collection[str]) -> list[Change]:
        """Take the rules that hold after a step.

        Args:
            step: Number of the step.
            held: Names of those rules.

        Returns:
            What changes from the next step on.
        """
        changes = self._undo(step, held)
        for rule in self._rules:
            if rule.name in held:
                changes += self._answer(rule, step, held)
        return changes

    def state(self) -> dict[str, JsonValue]:
        """What is in force, for a checkpoint."""
        return {key: answer.model_dump(mode="json") for key, answer in self._in_force.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave; what is not adjustable any more returns to the run's own value."""
        self._in_force = {
            key: _InForce.model_validate(answer, strict=False)
            for key, answer in state.items()
            if key in self._bounds
        }

    def _undo(self, step: int, held: Collection[str]) -> list[Change]:
        """Put back what no rule has asked for long enough."""
        changes: list[Change] = []
        for key, answer in list(self._in_force.items()):
            calm = 0 if any(name in held for name in answer.rules) else answer.calm + 1
            self._in_force[key] = answer.model_copy(update={"calm": calm})
            if calm >= self._settings.calm_steps:
                changes.append(self._put_back(key, step, answer.rules))
        return changes

    def _answer(self, rule: Rule, step: int, held: Collection[str]) -> list[Change]:
        """The first piece of the rule's advice that changes something, unless an earlier change is still to work."""
        present = self.config
        facts = facts_of(present, steps_per_epoch=self._steps_per_epoch)
        patience = max(self._settings.patience_steps, rule.steps(self._steps_per_epoch))
        for advice in rule.advice:
            wanted: Any = advice.change(present, facts) if advice.key in self._bounds else None
            if wanted is None:
                continue
            bounds, before = self._bounds[advice.key], present.value_at(advice.key)
            after = min(max(wanted, bounds.lo), bounds.hi)
            answer = self._in_force.get(advice.key)
            if answer is None:
                if after != before:
                    return [self._apply(advice.key, step, (rule.name,), before, after)]
                continue
            if (wanted > before) == (answer.value > self._own.value_at(advice.key)):
                rules = tuple(dict.fromkeys((*answer.rules, rule.name)))
                self._in_force[advice.key] = answer.model_copy(update={"rules": rules, "calm": 0})
                if step < answer.since + patience:
                    return []
                if after != before:
                    return [self._apply(advice.key, step, rules, before, after)]
            elif not any(name in held for name in answer.rules):
                # The other way from a change whose own cause is gone: that one is undone first.
                return [self._put_back(advice.key, step, answer.rules)]
        return []

    def _apply(self, key: str, step: int, rules: tuple[str, ...], before: Setting, after: Setting) -> Change:
        self._in_force[key] = _InForce(rules=rules, value=after, since=step)
        return Change(step=step, rules=rules, key=key, before=before, after=after, undone=False)

    def _put_back(self, key: str, step: int, rules: tuple[str, ...]) -> Change:
        before = self._in_force.pop(key).value
        own = self._own.value_at(key)
        return Change(step=step, rules=rules, key=key, before=before, after=own, undone=True)


def _with(model: Model, path: list[str], value: Setting) -> Model:
    """The model with the value at the end of the path."""
    name, *rest = path
    return model.model_copy(update={name: _with(getattr(model, name), rest, value) if rest else value})
