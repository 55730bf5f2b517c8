"""What rules must know of a run beside the metrics of its steps: settings, and how it was evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

from pydantic import Field, ValidationError

from gad_ray.batch import SamplingSettings
from gad_ray.config import RunConfig, StrictModel
from gad_ray.config.load import validate
from gad_ray.core.discriminator import FixedTemperature
from gad_ray.errors import ConfigError, DataError


class SamplingFacts(StrictModel):
    """How responses were drawn; what is absent is not known."""

    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None

    @classmethod
    def of(cls, sampling: SamplingSettings) -> Self:
        """The facts of settings that are known."""
        return cls(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
        )


class RunFacts(StrictModel):
    """Facts of a run; what is absent is not known, and no rule that needs it fires."""

    loss_temperature: float | None = Field(default=None, gt=0.0)
    """τ of the ranking loss, where the metrics do not tell it."""

    policy_lr: float | None = Field(default=None, gt=0.0)
    """Learning rate of the policy in the game, after its warm-up."""

    warm_start_lr: float | None = Field(default=None, gt=0.0)
    """Learning rate with which the policy was fitted to the teacher's text before."""

    kl_coefficient: float | None = Field(default=None, ge=0.0)
    """β of the KL term in the loss, where the metrics do not tell it."""

    advantage: str | None = None
    """Name of the advantage, as in ``policy.advantage.name``."""

    steps_per_epoch: int | None = Field(default=None, ge=1)
    """Steps in which every training prompt comes once."""

    training_sampling: SamplingFacts | None = None
    """How the responses were drawn on which the critic learns."""

    evaluation_sampling: SamplingFacts | None = None
    """How those were drawn on which it is tested."""

    training_fingerprint: str | None = None
    """Fingerprint of the critic that was trained."""

    evaluation_fingerprint: str | None = None
    """Fingerprint of the critic that was tested."""

    identical_text_difference: float | None = None
    """Largest |score difference| of two equal responses to one prompt."""

    @property
    def same_critic(self) -> bool | None:
        """Whether the critic that was tested is the one that was trained; None if that is not known."""
        if self.training_fingerprint is None or self.evaluation_fingerprint is None:
            return None
        return self.training_fingerprint == self.evaluation_fingerprint

    @property
    def sampling_differences(self) -> dict[str, tuple[float, float]]:
        """Setting → (in training, in evaluation), for those that are known of both and differ."""
        if self.training_sampling is None or self.evaluation_sampling is None:
            return {}
        trained, tested = self.training_sampling.model_dump(), self.evaluation_sampling.model_dump()
        return {
            name: (value, tested[name])
            for name, value in trained.items()
            if None not in (value, tested[name]) and value != tested[name]
        }


NO_FACTS = RunFacts()
"""Nothing is known."""

_THIS_RUN = "the critic of the step"


def facts_of(config: RunConfig, *, steps_per_epoch: int | None = None) -> RunFacts:
    """What a run's own configuration tells.

    The fixed set is drawn with the rollout's settings and scored by the critic of the step, so that both are
    the same in training and evaluation.
    """
    loss, rollout, stages = config.critic.loss, config.rollout, config.stages
    sampling = SamplingFacts.of(
        SamplingSettings.of(rollout, num_responses=rollout.responses_per_prompt, seed=0)
    )
    warm_start: float | None = None
    if stages.warm_start != "none":
        warm_start = config.fit.of(stages.warm_start).optimizer.lr
    elif stages.warmup.policy == "cross_entropy":
        warm_start = stages.warmup.policy_lr
    return RunFacts(
        loss_temperature=loss.temperature.value if isinstance(loss.temperature, FixedTemperature) else None,
        policy_lr=config.policy.optimizer.lr,
        warm_start_lr=warm_start,
        kl_coefficient=config.policy.kl.coefficient if config.policy.kl.place == "loss" else 0.0,
        advantage=config.policy.advantage.variant,
        steps_per_epoch=steps_per_epoch,
        training_sampling=sampling,
        evaluation_sampling=sampling,
        training_fingerprint=_THIS_RUN,
        evaluation_fingerprint=_THIS_RUN,
    )


def read_facts(path: Path) -> RunFacts:
    """Facts from a JSON file.

    Raises:
        DataError: Naming file and field, if they cannot be used.
    """
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path") from None
    except ValueError as error:
        raise DataError(f"not JSON: {error}", where=str(path), hint="write one JSON object") from None
    return parse_facts(content, where=str(path))


def parse_facts(content: object, *, where: str) -> RunFacts:
    """Facts from what was read as JSON.

    Raises:
        DataError: Naming ``where`` and the field.
    """
    try:
        return RunFacts.model_validate_json(json.dumps(content))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(
            f"not the facts of a run: {faults}",
            where=where,
            hint="known facts: " + ", ".join(RunFacts.model_fields),
        ) from None


def assumed_config(facts: RunFacts, latest: Mapping[str, float]) -> RunConfig:
    """A configuration for advice on a run whose own is not known: the defaults, and what the log tells.

    Args:
        facts: What is known beside the metrics.
        latest: The latest value of every metric.
    """
    raw: dict[str, Any] = {
        "name": "unknown",
        "prompts_per_step": 1,
        "data": {"train": ["unknown.jsonl"]},
        "policy": {"model": {"model": "unknown"}},
        "critic": {"model": {"model": "unknown"}},
        "rollout": {},
        "stages": {"warmup": {"epochs": 1.0}, "adversarial": {"epochs": 1.0}},
    }
    told: dict[str, float | str | None] = {
        "critic.loss.temperature.value": latest.get("critic/temperature", facts.loss_temperature),
        "critic.optimizer.lr": latest.get("critic/lr"),
        "policy.optimizer.lr": facts.policy_lr or latest.get("actor/lr"),
        "policy.kl.coefficient": latest.get("actor/kl_coef", facts.kl_coefficient),
        "policy.advantage.name": facts.advantage,
    }
    sampling = facts.training_sampling or SamplingFacts()
    told |= {
        "rollout.temperature": sampling.temperature,
        "rollout.top_p": sampling.top_p,
        "rollout.repetition_penalty": sampling.repetition_penalty,
        "rollout.max_response_tokens": sampling.max_tokens,
    }
    for key, value in told.items():
        if value is None:
            continue
        attempt = cast("dict[str, Any]", json.loads(json.dumps(raw)))
        *parents, last = key.split(".")
        node = attempt
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
        try:
            validate(attempt, where="log")
        except ConfigError:
            # A value that GAD-Ray does not take, as a learning rate of 0: the default is advised on.
            continue
        raw = attempt
    return validate(raw, where="log")
