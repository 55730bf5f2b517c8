"""A plan: seconds of a step by stage and part, hours of the run, memory of its actors, and all that was assumed."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gad_ray import machine
from gad_ray.auto import resolve
from gad_ray.config import RunConfig
from gad_ray.errors import ConfigError, GadError
from gad_ray.machine import GIB
from gad_ray.memory_estimate import ActorMemory, estimate_memory
from gad_ray.models.facts import ModelFacts
from gad_ray.models.source import describe_model
from gad_ray.planning.cost_model import Cluster, Work, fit_seconds, game_seconds, step_seconds
from gad_ray.planning.from_config import (
    Lengths,
    cluster_of,
    critic_is_remote,
    gpus_of,
    size_of,
    work_of,
)
from gad_ray.planning.measured import NOT_CALIBRATED, Calibration, Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """Steps of one kind.

    Attributes:
        name: Which.
        num_steps: How many; None where that hangs on rows that are not known.
        parts: Part → seconds of a step.
        step: Seconds of a step; less than its parts together where some go on at the same time.
    """

    name: str
    num_steps: int | None
    parts: Mapping[str, float]
    step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will take.

    Attributes:
        stages: In their order; the last is the game.
        hours: Of all steps; None where a stage's length is not known.
        unit: ``GPU-hours``, or ``core-hours`` where no group reserves a GPU.
        units: GPUs that the run reserves, or cores of this machine.
        memory: What each actor will hold.
        assumptions: What the figures rest on, a sentence each.
        advice: What the split says of the number of rollout workers.
    """

    stages: tuple[StagePlan, ...]
    hours: float | None
    unit: str
    units: float
    memory: tuple[ActorMemory, ...]
    assumptions: tuple[str, ...]
    advice: str

    @property
    def unit_hours(self) -> float | None:
        """GPU-hours or core-hours of all steps."""
        return None if self.hours is None else self.hours * self.units

    def to_json(self) -> dict[str, Any]:
        """The plan in values of JSON."""
        return {**asdict(self), "unit_hours": self.unit_hours}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a plan goes by beside the configuration.

    Attributes:
        gpu: Name of the GPUs; this machine's when None.
        mfu: Share of the peak that passes reach; what is known of the device when None.
        calibration: A run whose measured steps scale the model.
        prompt: Mean tokens of a prompt, or None; likewise the next two.
        response: Of a response.
        teacher: Of a teacher's text.
        rows: Prompts to train on.
    """

    gpu: str | None = None
    mfu: float | None = None
    calibration: Measured | None = None
    prompt: float | None = None
    response: float | None = None
    teacher: float | None = None
    rows: int | None = None


def make_plan(config: RunConfig, wishes: Wishes) -> Plan:
    """Plan a run.

    Raises:
        GadError: If a model cannot be described, the data cannot be read and no lengths are given, or a device is not known.
    """
    config = resolve(config).config
    lengths, told = find_lengths(config, wishes)
    cost = _Cost(config, wishes)
    calibration = NOT_CALIBRATED
    if (run := wishes.calibration) is not None:
        earlier = _Cost(resolve(run.config).config, replace(wishes, calibration=None))
        calibration = Calibration.of(run, earlier.parts(run.lengths), fit=earlier.fit(run.lengths))
        told.append(_told_factors(run, calibration))
    stages = _stages(config, cost, lengths, calibration)
    known = [stage.num_steps * stage.step / 3600 for stage in stages if stage.num_steps is not None]
    gpus = gpus_of(config)
    memory = estimate_memory(config, policy=cost.policy, critic=cost.critic, engine=config.rollout.engine)
    return Plan(
        stages=stages,
        hours=sum(known) if len(known) == len(stages) else None,
        unit="GPU-hours" if gpus else "core-hours",
        units=gpus or machine.usable_cores(),
        memory=memory,
        assumptions=(*told, *_assumptions(config, cost.cluster, memory, is_calibrated=run is not None)),
        advice=workers_advice(
            stages[-1], num_workers=config.rollout.num_workers, ahead=config.max_staleness > 0
        ),
    )


def workers_advice(game: StagePlan, *, num_workers: int, ahead: bool) -> str:
    """What a step's split says of the number of rollout workers.

    Args:
        game: A step of the game.
        num_workers: Rollout workers that there are.
        ahead: Whether rollout goes on beside training.
    """
    rollout = game.parts["rollout"]
    rest = game.step if ahead and game.step > rollout else sum(game.parts.values()) - rollout
    share = f"rollout is {rollout / (rollout + rest):.0%} of the work of a step"
    # With so many it takes no longer than all else.
    balanced = max(1, math.ceil(num_workers * rollout / rest)) if rest > 0 else num_workers
    if not ahead:
        step = max(rollout * num_workers / balanced, rest)
        return (
            f"{share}: beside training (max_staleness=1), on devices of its own and with {balanced} "
            f"worker{'s' if balanced > 1 else ''}, a step would take {step:.3g} s in place of {game.step:.3g}"
        )
    if balanced > num_workers:
        return f"{share}: {balanced - num_workers} more rollout workers would balance it"
    if balanced < num_workers:
        return f"{share}: it would be as fast with {balanced} of the {num_workers} rollout workers"
    return f"{share}: rollout and training are in balance"


class _Cost:
    """The cost model of one configuration."""

    def __init__(self, config: RunConfig, wishes: Wishes) -> None:
        self.config = config
        self.policy = describe_model(config.policy.model.model)
        self.critic: ModelFacts | None = None
        if not critic_is_remote(config):
            self.critic = describe_model(config.critic.model.model)
        self._sizes = (
            size_of(self.policy, role="policy"),
            None if self.critic is None else size_of(self.critic, role="critic"),
        )
        policy, critic = self._sizes
        self.cluster: Cluster = cluster_of(
            config, gpu=wishes.gpu, policy=policy, critic=critic, mfu=wishes.mfu
        )

    def work(self, lengths: Lengths) -> Work:
        return work_of(self.config, lengths, policy=self.policy, critic=self.critic)

    def parts(self, lengths: Lengths) -> dict[str, float]:
        policy, critic = self._sizes
        return game_seconds(self.work(lengths), self.cluster, policy=policy, critic=critic)

    def fit(self, lengths: Lengths) -> float:
        return fit_seconds(self.work(lengths), self.cluster, policy=self._sizes[0])


def _stages(
    config: RunConfig, cost: _Cost, lengths: Lengths, calibration: Calibration
) -> tuple[StagePlan, ...]:
    game = calibration.applied(cost.parts(lengths))
    # The KL penalty is the game's alone.
    before = game | ({"reward": 0.0} if config.policy.kl.in_reward else {})
    alone = before | {"policy": 0.0, "sync": 0.0}
    fitted = before | {"policy": calibration.fitted(cost.fit(lengths))}
    warmup, adversarial = (_num_steps(config, stage, lengths) for stage in ("warmup", "adversarial"))
    num_fitted = 0
    if config.stages.warmup.policy == "cross_entropy":
        num_fitted = None if warmup is None else max(0, warmup - config.stages.warmup.critic_only_steps)
    num_alone = None if warmup is None or num_fitted is None else warmup - num_fitted
    # While the policy learns nothing from the critic, there is nothing that they could learn together.
    in_turn = replace(cost.cluster, learn_together=False)
    stages = (
        StagePlan(name="warm-up", num_steps=num_alone, parts=alone, step=step_seconds(alone, in_turn)),
        StagePlan(
            name="warm-up, policy fitted",
            num_steps=num_fitted,
            parts=fitted,
            step=step_seconds(fitted, in_turn),
        ),
        StagePlan(name="game", num_steps=adversarial, parts=game, step=step_seconds(game, cost.cluster)),
    )
    return tuple(stage for stage in stages if stage.num_steps != 0 or stage.name == "game")


def _num_steps(config: RunConfig, stage: str, lengths: Lengths) -> int | None:
    length = config.stages.warmup if stage == "warmup" else config.stages.adversarial
    if length.steps is None and not lengths.num_prompts:
        return None
    return length.in_steps(num_prompts=lengths.num_prompts, prompts_per_step=config.prompts_per_step)


def find_lengths(config: RunConfig, wishes: Wishes) -> tuple[Lengths, list[str]]:
    """Lengths from the options, then from the calibrating run if it has the same data, then from the data.

    Returns:
        The lengths, and where they come from, in sentences.

    Raises:
        GadError: If they hang on data that cannot be read.
    """
    limit = config.rollout.max_response_tokens
    run = wishes.calibration
    given = (wishes.prompt, wishes.response, wishes.teacher)
    if run is not None and run.config.data.train == config.data.train:
        found, source = run.lengths, f"run {run.run}, {run.num_steps} steps"
        # One that was cut at its limit would be cut at this one.
        if found.longest >= run.config.rollout.max_response_tokens - 1:
            found = replace(found, longest=limit)
        found = replace(found, longest=min(found.longest, limit), response=min(found.response, limit))
    elif None not in (wishes.prompt, wishes.teacher):
        found, source = Lengths(prompt=0, response=0, longest=limit, teacher=0), "the options"
    else:
        found, source = _lengths_of_data(config), "the data"
    prompt, response, teacher = (
        old if new is None else new
        for new, old in zip(given, (found.prompt, found.response, found.teacher), strict=True)
    )
    told = [f"{prompt:.0f} tokens of prompt, {teacher:.0f} of the teacher's text in the mean ({source})"]
    if not response:
        response = min(teacher, limit)
        told.append(f"responses are as long as the teacher's texts, {response:.0f} tokens in the mean")
    else:
        told.append(f"{response:.0f} tokens of a response in the mean")
    told.append(f"the longest response of a step has {max(found.longest, response):.0f} tokens")
    return (
        Lengths(
            prompt=prompt,
            response=response,
            longest=max(found.longest, response),
            teacher=teacher,
            num_prompts=wishes.rows or found.num_prompts,
        ),
        told,
    )


def _lengths_of_data(config: RunConfig) -> Lengths:
    """Means over the training rows, in tokens of the policy; nothing is left of reading them."""
    from gad_ray.models.chat import configured_chat_format
    from gad_ray.models.run_data import load_run_data
    from gad_ray.models.source import resolve_model

    scratch = Path(tempfile.mkdtemp(prefix="gad-ray-plan-"))
    try:
        rows = load_run_data(config, quarantine_path=scratch / "quarantine.jsonl").train
        model = config.policy.model
        chat = configured_chat_format(resolve_model(model.model), model)
        prompts = [len(chat.prompt_ids(row.messages)) for row in rows]
        teachers = [len(chat.response_ids(row.teacher_response)) for row in rows]
    except GadError as error:
        raise ConfigError(
            f"how long texts are cannot be read from the data: {error}",
            where="data.train",
            hint="give --prompt-tokens, --teacher-tokens and --rows in their place",
        ) from error
    finally:
        shutil.rmtree(scratch)
    return Lengths(
        prompt=sum(prompts) / len(rows),
        response=0.0,
        longest=config.rollout.max_response_tokens,
        teacher=sum(teachers) / len(rows),
        num_prompts=len(rows),
    )


def _told_factors(run: Measured, calibration: Calibration) -> str:
    factors = ", ".join(f"{part} × {factor:.2f}" for part, factor in sorted(calibration.factors.items()))
    constants = sum(calibration.constants.values())
    return (
        f"calibrated by the {run.num_steps} steps of {run.run} ({run.stage}): {factors}; {constants:.2g} s of a step that no "
        "size explains are carried over; the same machine and engine"
    )


def _assumptions(
    config: RunConfig, cluster: Cluster, memory: tuple[ActorMemory, ...], *, is_calibrated: bool
) -> list[str]:
    told: list[str] = []
    if not is_calibrated:
        for role, group in (
            ("policy", cluster.policy),
            ("critic", cluster.critic),
            ("rollout", cluster.rollout),
        ):
            device = group.device
            told.append(
                f"{role}: {group.num} × {device.name} in {group.precision}, {device.train:.0%} of "
                f"{device.rates[group.precision] / 1e12:.3g} TFLOP/s and {device.read:.0%} of {device.bandwidth / 1e9:.0f} GB/s"
            )
    if cluster.rollout_ahead:
        told.append("rollout goes on beside training, on devices of its own (max_staleness)")
    if cluster.learn_together:
        told.append("critic and policy learn at the same time, on devices of their own (overlap)")
    if config.policy.advantage.refill is not None:
        told.append("no group is refilled")
    if config.stages.warm_start != "none":
        told.append(f"the warm start by {config.stages.warm_start} comes before and is not in it")
    if critic_is_remote(config):
        told.append("the remote critic takes no time")
    gpu = cluster.policy.device.memory_gib or cluster.rollout.device.memory_gib
    told.extend(
        f"{actor.role} needs {actor.each / GIB:.0f} GiB, and the GPU has {gpu:g}"
        for actor in memory
        if actor.on_gpu and gpu and actor.each > gpu * GIB
    )
    told.append(
        "padding and gradients between ranks take no time" if not is_calibrated else "padding as in that run"
    )
    told.append("not in it: start and end, evaluations, checkpoints")
    return told
