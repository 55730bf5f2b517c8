"""Changes of single settings that answer a finding, made concrete for the run at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gad_ray.config import RunConfig

Value = float | int | bool | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A change of one setting in a direction that mends something.

    Attributes:
        key: Dotted key of the setting.
        change: The run's configuration → the setting's new value, or None if there is nothing left to
            change in that direction.
    """

    key: str
    change: Callable[[RunConfig], Value | None]

    def override(self, config: RunConfig) -> str | None:
        """The change as a ``key=value`` override of ``config``, or None if there is nothing to change."""
        value = self.change(config)
        return None if value is None else f"{self.key}={_as_yaml(value)}"


def _as_yaml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        text = f"{value:.6g}"
        mantissa, exponent, power = text.partition("e")
        # YAML takes 5e-06 for a word and 5 for an integer: a float needs its point.
        return (mantissa if "." in mantissa else f"{mantissa}.0") + exponent + power
    return str(value)


def _higher_temperature(config: RunConfig) -> float:
    """The next of 2, 5 and 7, then half as much again."""
    present = config.critic.loss.temperature.value
    return next((step for step in (2.0, 5.0, 7.0) if step > present), 1.5 * present)


def _lower_temperature(config: RunConfig) -> float:
    present = config.critic.loss.temperature.value
    return 3.0 if present > 3.0 else 0.6 * present


def _lower_reg_threshold(config: RunConfig) -> float | None:
    return 3.0 if config.critic.loss.score_reg.threshold > 3.0 else None


def _higher_reg_weight(config: RunConfig) -> float:
    present = config.critic.loss.score_reg.weight
    return 0.01 if present < 0.01 else 3 * present


def _lower_critic_lr(config: RunConfig) -> float:
    present = config.critic.optimizer.lr
    return 5e-6 if present > 1e-5 else present / 2


def _higher_critic_lr(config: RunConfig) -> float | None:
    raised = 3 * config.critic.optimizer.lr
    return raised if raised < 0.1 else None


def _fewer_critic_updates(config: RunConfig) -> int | None:
    present = config.critic.updates_per_step
    return max(1, present // 2) if present > 1 else None


RAISE_TEMPERATURE = Advice(key="critic.loss.temperature.value", change=_higher_temperature)
LOWER_TEMPERATURE = Advice(key="critic.loss.temperature.value", change=_lower_temperature)
LOWER_REG_THRESHOLD = Advice(key="critic.loss.score_reg.threshold", change=_lower_reg_threshold)
RAISE_REG_WEIGHT = Advice(key="critic.loss.score_reg.weight", change=_higher_reg_weight)
BATCH_NORM_ON = Advice(
    key="critic.loss.batch_norm", change=lambda c: None if c.critic.loss.batch_norm else True
)
BATCH_NORM_OFF = Advice(
    key="critic.loss.batch_norm", change=lambda c: False if c.critic.loss.batch_norm else None
)
LOWER_CRITIC_LR = Advice(key="critic.optimizer.lr", change=_lower_critic_lr)
RAISE_CRITIC_LR = Advice(key="critic.optimizer.lr", change=_higher_critic_lr)
CLIP_CRITIC_GRADIENT = Advice(
    key="critic.optimizer.grad_clip", change=lambda c: 1.0 if c.critic.optimizer.grad_clip > 1.0 else None
)
FEWER_CRITIC_UPDATES = Advice(key="critic.updates_per_step", change=_fewer_critic_updates)
ROLLOUT_IN_FLOAT32 = Advice(
    key="rollout.precision", change=lambda c: None if c.rollout.precision == "float32" else "float32"
)
NO_STALENESS = Advice(key="max_staleness", change=lambda c: 0 if c.max_staleness > 0 else None)
