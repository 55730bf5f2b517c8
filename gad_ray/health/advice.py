"""Changes of single settings that answer a finding, made concrete for the run at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gad_ray.config import RunConfig
from gad_ray.config.critic import AdaptiveTemperature, BradleyTerryLoss, FixedTemperature

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


def _fixed_temperature(config: RunConfig) -> float | None:
    temperature = config.critic.loss.temperature
    return temperature.value if isinstance(temperature, FixedTemperature) else None


def _higher_temperature(config: RunConfig) -> float | None:
    """The next of 2, 5 and 7, then half as much again."""
    present = _fixed_temperature(config)
    if present is None:
        return None
    return next((step for step in (2.0, 5.0, 7.0) if step > present), 1.5 * present)


def _lower_temperature(config: RunConfig) -> float | None:
    present = _fixed_temperature(config)
    if present is None:
        return None
    return 3.0 if present > 3.0 else 0.6 * present


def _other_preset(config: RunConfig, *, present: str, other: str) -> str | None:
    temperature = config.critic.loss.temperature
    has_it = isinstance(temperature, AdaptiveTemperature) and temperature.preset == present
    return other if has_it else None


def _batch_norm(config: RunConfig, *, on: bool) -> bool | None:
    loss = config.critic.loss
    return on if isinstance(loss, BradleyTerryLoss) and loss.batch_norm is not on else None


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
SMOOTHER_TEMPERATURE = Advice(
    key="critic.loss.temperature.preset", change=lambda c: _other_preset(c, present="sharp", other="smooth")
)
SHARPER_TEMPERATURE = Advice(
    key="critic.loss.temperature.preset", change=lambda c: _other_preset(c, present="smooth", other="sharp")
)
BATCH_NORM_ON = Advice(key="critic.loss.batch_norm", change=lambda c: _batch_norm(c, on=True))
BATCH_NORM_OFF = Advice(key="critic.loss.batch_norm", change=lambda c: _batch_norm(c, on=False))
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
