"""Changes of single settings that answer a finding, made concrete for the run at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import yaml

from gad_ray.config import RunConfig
from gad_ray.config.reward import LengthWindow
from gad_ray.core.advantages import GrpoAdvantage
from gad_ray.core.discriminator import AdaptiveTemperature, BradleyTerryLoss, FixedTemperature
from gad_ray.health.facts import NO_FACTS, RunFacts

Value = float | int | bool | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A change of one setting in a direction that mends something.

    Attributes:
        key: Dotted key of the setting.
        change: The run's configuration and facts → the setting's new value, or None if there is nothing left
            to change in that direction.
    """

    key: str
    change: Callable[[RunConfig, RunFacts], Value | None]

    def override(self, config: RunConfig, facts: RunFacts = NO_FACTS) -> str | None:
        """The change as a ``key=value`` override of ``config``, or None if there is nothing to change."""
        value = self.change(config, facts)
        return None if value is None else f"{self.key}={_as_yaml(value)}"


def _advice(key: str, change: Callable[[RunConfig], Value | None]) -> Advice:
    """Advice that depends on the configuration alone."""
    return Advice(key=key, change=lambda config, _facts: change(config))


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


def _blunter_temperature(config: RunConfig) -> float | None:
    """The gradient is divided by the temperature: one below 1 multiplies it."""
    present = _fixed_temperature(config)
    return 2.0 if present is not None and present < 1.0 else None


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


def _more_critic_updates(config: RunConfig) -> int | None:
    present = config.critic.updates_per_step
    return 2 * present if present < 8 else None


def _higher_policy_lr(config: RunConfig, facts: RunFacts) -> float | None:
    """Ten times as high, but not above the warm start's."""
    present = config.policy.optimizer.lr
    raised = min(10 * present, facts.warm_start_lr or 1e-3)
    return raised if raised > present else None


def _some_kl(config: RunConfig) -> float | None:
    """A policy that learns ten times as fast should not go without."""
    return 0.001 if config.policy.kl.coefficient == 0.0 else None


def _lower_kl(config: RunConfig) -> float | None:
    """The next of 0.05 and 0.01, then a tenth."""
    present = config.policy.kl.coefficient
    if present == 0.0:
        return None
    return next((step for step in (0.05, 0.01) if step < present), present / 10)


def _higher_kl(config: RunConfig) -> float | None:
    present = config.policy.kl.coefficient
    return max(0.001, 10 * present) if present < 0.01 else None


def _lower_std_floor(config: RunConfig) -> float | None:
    advantage = config.policy.advantage
    return advantage.std_floor / 10 if isinstance(advantage, GrpoAdvantage) else None


def _hotter_sampling(config: RunConfig) -> float | None:
    """The next of 0.6, 0.8, 1.0 and 1.2."""
    return next((step for step in (0.6, 0.8, 1.0, 1.2) if step > config.rollout.temperature), None)


def _overlong_penalty(config: RunConfig) -> str | None:
    """The format terms with one more: a penalty that grows over the last quarter of the permitted tokens."""
    limit = config.rollout.max_response_tokens
    return _with_length_window(config, {"max_tokens": limit, "soft_tokens": limit // 4})


def _too_short_penalty(config: RunConfig) -> str | None:
    """The same for what is shorter than a sixteenth of the permitted tokens."""
    limit = config.rollout.max_response_tokens
    return _with_length_window(config, {"max_tokens": limit, "min_tokens": max(1, limit // 16)})


def _with_length_window(config: RunConfig, window: dict[str, int]) -> str | None:
    terms = config.reward.format
    if any(isinstance(term, LengthWindow) for term in terms):
        return None
    listed = [
        *(term.model_dump(mode="json", exclude_defaults=True) | {"name": term.name} for term in terms),
        {"name": "length_window", **window},
    ]
    return yaml.safe_dump(listed, default_flow_style=True, width=10**6, sort_keys=False).strip()


def _evaluations(name: str) -> Callable[[RunConfig, RunFacts], Value | None]:
    """The setting with which the critic is tested, where training's is another."""

    def change(_config: RunConfig, facts: RunFacts) -> Value | None:
        trained_and_tested = facts.sampling_differences.get(name)
        return None if trained_and_tested is None else trained_and_tested[1]

    return change


RAISE_TEMPERATURE = _advice("critic.loss.temperature.value", _higher_temperature)
LOWER_TEMPERATURE = _advice("critic.loss.temperature.value", _lower_temperature)
BLUNTER_TEMPERATURE = _advice("critic.loss.temperature.value", _blunter_temperature)
LOWER_REG_THRESHOLD = _advice("critic.loss.score_reg.threshold", _lower_reg_threshold)
RAISE_REG_WEIGHT = _advice("critic.loss.score_reg.weight", _higher_reg_weight)
SMOOTHER_TEMPERATURE = _advice(
    "critic.loss.temperature.preset", lambda c: _other_preset(c, present="sharp", other="smooth")
)
SHARPER_TEMPERATURE = _advice(
    "critic.loss.temperature.preset", lambda c: _other_preset(c, present="smooth", other="sharp")
)
BATCH_NORM_ON = _advice("critic.loss.batch_norm", lambda c: _batch_norm(c, on=True))
BATCH_NORM_OFF = _advice("critic.loss.batch_norm", lambda c: _batch_norm(c, on=False))
LOWER_CRITIC_LR = _advice("critic.optimizer.lr", _lower_critic_lr)
RAISE_CRITIC_LR = _advice("critic.optimizer.lr", _higher_critic_lr)
CLIP_CRITIC_GRADIENT = _advice(
    "critic.optimizer.grad_clip", lambda c: 1.0 if c.critic.optimizer.grad_clip > 1.0 else None
)
FEWER_CRITIC_UPDATES = _advice("critic.updates_per_step", _fewer_critic_updates)
MORE_CRITIC_UPDATES = _advice("critic.updates_per_step", _more_critic_updates)
REPLAY = _advice("critic.replay.ratio", lambda c: 0.5 if c.critic.replay is None else None)
EXCLUDE_CUT = _advice("critic.truncated", lambda c: "exclude" if c.critic.truncated == "keep" else None)
OVERLONG_PENALTY = _advice("reward.format", _overlong_penalty)
TOO_SHORT_PENALTY = _advice("reward.format", _too_short_penalty)
RAISE_POLICY_LR = Advice(key="policy.optimizer.lr", change=_higher_policy_lr)
LOWER_POLICY_LR = _advice("policy.optimizer.lr", lambda c: c.policy.optimizer.lr / 3)
SOME_KL = _advice("policy.kl.coefficient", _some_kl)
LOWER_KL = _advice("policy.kl.coefficient", _lower_kl)
RAISE_KL = _advice("policy.kl.coefficient", _higher_kl)
GRPO = _advice("policy.advantage.name", lambda c: None if c.policy.advantage.variant == "grpo" else "grpo")
LOWER_STD_FLOOR = _advice("policy.advantage.std_floor", _lower_std_floor)
DROP_ZERO_SPREAD = _advice(
    "policy.advantage.zero_spread", lambda c: "drop" if c.policy.advantage.zero_spread == "keep" else None
)
HOTTER_SAMPLING = _advice("rollout.temperature", _hotter_sampling)
SPREAD_FIRST = _advice(
    "data.curriculum", lambda c: "{name: spread_first, epochs: 1.0}" if c.data.curriculum is None else None
)
SAMPLE_AS_EVALUATED = tuple(
    Advice(key=f"rollout.{setting}", change=_evaluations(fact))
    for fact, setting in {
        "temperature": "temperature",
        "top_p": "top_p",
        "repetition_penalty": "repetition_penalty",
        "max_tokens": "max_response_tokens",
    }.items()
)
KEEP_RECORDS = _advice("records.every", lambda c: 1 if c.records.every == 0 else None)
ROLLOUT_IN_FLOAT32 = _advice(
    "rollout.precision", lambda c: None if c.rollout.precision == "float32" else "float32"
)
NO_STALENESS = _advice("max_staleness", lambda c: 0 if c.max_staleness > 0 else None)
WEIGH_IMPORTANCE = _advice(
    "policy.importance.name", lambda c: "truncated" if c.policy.importance is None else None
)
